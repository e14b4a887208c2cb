// Memory for machine code made at load: written first, executed afterwards, never both at once.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace tritkit {

class CodeMemory {
 public:
  CodeMemory() = default;
  // Copies `code` to pages of its own and makes them executable. Empty where the system refuses executable memory.
  explicit CodeMemory(const std::vector<uint8_t>& code);
  CodeMemory(CodeMemory&& other) noexcept;
  CodeMemory& operator=(CodeMemory&& other) noexcept;
  ~CodeMemory();

  const uint8_t* data() const { return data_; }
  size_t size() const { return size_; }
  explicit operator bool() const { return data_ != nullptr; }

 private:
  uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace tritkit

// Memory for weights and activations: 64-byte aligned, sized against the machine before the system is asked.
#pragma once
#include <cstddef>
#include <cstdint>

namespace tritkit {

class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  explicit AlignedBuffer(size_t bytes);  // zeroed; throws std::bad_alloc
  AlignedBuffer(AlignedBuffer&& other) noexcept;
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept;
  ~AlignedBuffer();

  uint8_t* data() { return data_; }
  const uint8_t* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

// Bytes of memory that this machine has; a large number where the system does not say.
int64_t physical_memory();

}  // namespace tritkit

#include "base/code_memory.h"

#include <cstring>
#include <utility>
#if defined(__unix__) || defined(__APPLE__)
#include <sys/mman.h>
#endif

namespace tritkit {

CodeMemory::CodeMemory(const std::vector<uint8_t>& code) {
#if defined(__unix__)
  if (code.empty()) return;
  void* const pages = mmap(nullptr, code.size(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (pages == MAP_FAILED) return;
  std::memcpy(pages, code.data(), code.size());
  if (mprotect(pages, code.size(), PROT_READ | PROT_EXEC) != 0) {
    munmap(pages, code.size());
    return;
  }
  __builtin___clear_cache(static_cast<char*>(pages), static_cast<char*>(pages) + code.size());
  data_ = static_cast<uint8_t*>(pages);
  size_ = code.size();
#else
  (void)code;
#endif
}

CodeMemory::CodeMemory(CodeMemory&& other) noexcept : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

CodeMemory& CodeMemory::operator=(CodeMemory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

CodeMemory::~CodeMemory() {
#if defined(__unix__)
  if (data_) munmap(data_, size_);
#endif
}

}  // namespace tritkit

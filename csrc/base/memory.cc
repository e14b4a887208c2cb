#include "base/memory.h"

#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

namespace tritkit {

AlignedBuffer::AlignedBuffer(size_t bytes) {
  if (bytes == 0) return;
  void* memory = nullptr;
  if (bytes > SIZE_MAX / 2 || posix_memalign(&memory, 64, bytes) != 0) throw std::bad_alloc();
  std::memset(memory, 0, bytes);
  data_ = static_cast<uint8_t*>(memory);
  size_ = bytes;
}

AlignedBuffer::AlignedBuffer(AlignedBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

AlignedBuffer& AlignedBuffer::operator=(AlignedBuffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

AlignedBuffer::~AlignedBuffer() { std::free(data_); }

int64_t physical_memory() {
  const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
  if (pages <= 0 || page <= 0) return INT64_MAX;
  return static_cast<int64_t>(pages) * page;
}

}  // namespace tritkit

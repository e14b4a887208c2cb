#include "base/memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

namespace tritkit {

namespace {

constexpr size_t kHugePage = size_t{2} << 20;

// A large block takes whole pages of 2 MiB where the system has them: weights that are read once a run then cost few address
// translations, and the CPU's own prefetching does not stop every 4 KiB.
void* allocate(size_t bytes) {
  void* memory = nullptr;
  const bool large = bytes >= kHugePage / 2;
  const size_t whole = large ? (bytes + kHugePage - 1) / kHugePage * kHugePage : bytes;
  if (posix_memalign(&memory, large ? kHugePage : 64, whole) != 0) return nullptr;
#if defined(MADV_HUGEPAGE)
  if (large) madvise(memory, whole, MADV_HUGEPAGE);
#endif
  return memory;
}

}  // namespace

AlignedBuffer::AlignedBuffer(size_t bytes) {
  if (bytes == 0) return;
  void* const memory = bytes > SIZE_MAX / 2 ? nullptr : allocate(bytes);
  if (!memory) throw std::bad_alloc();
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

// The machine instructions of baked convolutions: x86-64 with AVX-512 (F, BW). Register numbers are of zmm; memory is read at a
// displacement from rdi and written at a multiple of 64 bytes from rsi.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace tritkit {

class Emitter {
 public:
  static constexpr size_t kLongest = 10;  // bytes of an instruction

  explicit Emitter(std::vector<uint8_t>* code) : code_(code), size_(code->size()) {}

  size_t size() const { return size_; }
  void finish() { code_->resize(size_); }  // drops the room that is left
  // Makes room for this many instructions; to be called before they are.
  void reserve(size_t instructions) {
    if (size_ + instructions * kLongest > code_->size()) code_->resize(2 * size_ + instructions * kLongest);
    at_ = code_->data() + size_;
  }

  void load(int to, int32_t at) { memory(k_F2, true, 0x6f, to, kNone, at); }                    // vmovdqu16 zmm, [rdi + at]
  void add(int sum, int x) { registers(k_66, false, 0xfd, sum, sum, x); }                         // vpaddw zmm, zmm, zmm
  void subtract(int sum, int x) { registers(k_66, false, 0xf9, sum, sum, x); }                    // vpsubw zmm, zmm, zmm
  void add_memory(int sum, int32_t at) { memory(k_66, false, 0xfd, sum, sum, at); }               // vpaddw zmm, zmm, [rdi + at]
  void subtract_memory(int sum, int32_t at) { memory(k_66, false, 0xf9, sum, sum, at); }          // vpsubw zmm, zmm, [rdi + at]
  void clear(int sum) { registers(k_66, true, 0xef, sum, sum, sum); }                             // vpxorq zmm, zmm, zmm
  void store(int from, int8_t vectors) {                                                          // vmovdqa64 [rsi + 64 * vectors], zmm
    prefix(k_66, true, from, kNone, 0);
    bytes(0x7f | (0x40 | (from & 7) << 3 | 6) << 8 | static_cast<uint8_t>(vectors) << 16, 3);
  }
  void ret() { bytes(0xc3, 1); }

 private:
  enum Mandatory { k_66 = 1, k_F2 = 3 };
  static constexpr int kNone = 0;  // stored inverted

  // EVEX, 512 bits, map 0F: `reg` is the ModRM register, `source` the vvvv operand (kNone where there is none), `rm` the last one.
  void prefix(Mandatory pp, bool wide, int reg, int source, int rm) {
    const int p0 = (~reg >> 3 & 1) << 7 | (~rm >> 4 & 1) << 6 | (~rm >> 3 & 1) << 5 | (~reg >> 4 & 1) << 4 | 1;
    const int p1 = (wide ? 0x80 : 0) | (~source & 15) << 3 | 4 | pp;
    const int p2 = 0x40 | (~source >> 4 & 1) << 3;
    bytes(0x62u | static_cast<uint32_t>(p0) << 8 | static_cast<uint32_t>(p1) << 16 | static_cast<uint32_t>(p2) << 24, 4);
  }
  void registers(Mandatory pp, bool wide, uint8_t opcode, int reg, int source, int rm) {
    prefix(pp, wide, reg, source, rm);
    bytes(opcode | (0xc0u | static_cast<uint32_t>((reg & 7) << 3 | (rm & 7))) << 8, 2);
  }
  void memory(Mandatory pp, bool wide, uint8_t opcode, int reg, int source, int32_t at) {
    prefix(pp, wide, reg, source, 0);
    bytes(opcode | (0x80u | static_cast<uint32_t>((reg & 7) << 3 | 7)) << 8, 2);
    bytes(static_cast<uint32_t>(at), 4);
  }
  // The lowest `count` bytes of `value`, the lowest first.
  void bytes(uint32_t value, size_t count) {
    for (size_t i = 0; i < count; ++i) at_[i] = static_cast<uint8_t>(value >> 8 * i);
    at_ += count;
    size_ += count;
  }

  std::vector<uint8_t>* code_;
  size_t size_;
  uint8_t* at_ = nullptr;
};

}  // namespace tritkit

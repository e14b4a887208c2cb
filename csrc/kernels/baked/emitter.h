// The machine instructions of baked convolutions on x86-64: 512-bit ones (AVX-512 F, BW) or 256-bit ones (AVX2). Memory is read at a
// displacement from rdi and written at a multiple of 64 bytes from rsi. Sums and loads are numbered from 0, each in registers of its own.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace tritkit {

// Bytes, the lowest first, and room for them.
class CodeWriter {
 public:
  static constexpr size_t kLongest = 10;  // bytes of an instruction

  explicit CodeWriter(std::vector<uint8_t>* code) : code_(code), size_(code->size()) {}

  size_t size() const { return size_; }
  void finish() { code_->resize(size_); }  // drops the room that is left
  // Makes room for this many instructions; to be called before they are.
  void reserve(size_t instructions) {
    if (size_ + instructions * kLongest > code_->size()) code_->resize(2 * size_ + instructions * kLongest);
    at_ = code_->data() + size_;
  }
  void ret() { bytes(0xc3, 1); }

 protected:
  static uint8_t opcode(bool minus) { return static_cast<uint8_t>(0xfd - 4 * minus); }  // of vpaddw and vpsubw

  // The lowest `count` bytes of `value`.
  void bytes(uint32_t value, size_t count) {
    for (size_t i = 0; i < count; ++i) at_[i] = static_cast<uint8_t>(value >> 8 * i);
    at_ += count;
    size_ += count;
  }

 private:
  std::vector<uint8_t>* code_;
  size_t size_;
  uint8_t* at_ = nullptr;
};

// 32 pixels an instruction: sums in zmm0 to zmm23, loads in zmm24 to zmm31.
class Emitter512 : public CodeWriter {
 public:
  static constexpr int kSums = 24, kLoads = 8, kAddBytes = 6, kLoadBytes = 10, kHalves = 1;
  using CodeWriter::CodeWriter;

  void load(int x, int32_t at) { memory(k_F2, true, 0x6f, kSums + x, kNone, at); }                 // vmovdqu16 zmm, [rdi + at]
  // vpaddw or, where `minus`, vpsubw: a load to a sum, memory to a sum, and two loads.
  void add(int sum, int x, bool minus) { registers(k_66, false, opcode(minus), sum, sum, kSums + x); }
  void add_memory(int sum, int32_t at, bool minus) { memory(k_66, false, opcode(minus), sum, sum, at); }
  void combine(int x, int a, int b, bool minus) { registers(k_66, false, opcode(minus), kSums + x, kSums + a, kSums + b); }
  void clear(int sum) { registers(k_66, true, 0xef, sum, sum, sum); }                             // vpxorq zmm, zmm, zmm
  void resume(int sum) { sums(0x6f, sum); }                                                       // vmovdqa64 zmm, [rsi + 64 * sum]
  void store(int sum) { sums(0x7f, sum); }                                                        // vmovdqa64 [rsi + 64 * sum], zmm

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
  void sums(uint8_t opcode, int sum) {
    prefix(k_66, true, sum, kNone, 0);
    bytes(static_cast<uint32_t>(opcode | (0x40 | (sum & 7) << 3 | 6) << 8 | sum << 16), 3);
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
};

// 16 pixels an instruction: loads in ymm0 to ymm3, where the prefix of two bytes reaches them, sums in ymm4 to ymm15.
class Emitter256 : public CodeWriter {
 public:
  static constexpr int kSums = 12, kLoads = 4, kAddBytes = 4, kLoadBytes = 8, kHalves = 2;
  using CodeWriter::CodeWriter;

  void load(int x, int32_t at) { memory(k_F3, 0x6f, x, kNone, at, kRdi); }                                   // vmovdqu ymm, [rdi + at]
  // vpaddw or, where `minus`, vpsubw: a load to a sum, memory to a sum, and two loads.
  void add(int sum, int x, bool minus) { registers(opcode(minus), kLoads + sum, kLoads + sum, x); }
  void add_memory(int sum, int32_t at, bool minus) { memory(k_66, opcode(minus), kLoads + sum, kLoads + sum, at, kRdi); }
  void combine(int x, int a, int b, bool minus) { registers(opcode(minus), x, a, b); }
  void clear(int sum) {                                                                                     // vpxor ymm, ymm, ymm
    const int reg = kLoads + sum;
    bytes(static_cast<uint32_t>(0xc4 | ((reg < 8 ? 0xe1 : 0x41) << 8) | (last(k_66, reg) << 16)) | 0xef000000u, 4);
    bytes(static_cast<uint32_t>(0xc0 | (reg & 7) << 3 | (reg & 7)), 1);
  }
  void resume(int sum) { memory(k_66, 0x6f, kLoads + sum, kNone, 64 * sum, kRsi); }                         // vmovdqa ymm, [rsi + 64 * sum]
  void store(int sum) { memory(k_66, 0x7f, kLoads + sum, kNone, 64 * sum, kRsi); }                          // vmovdqa [rsi + 64 * sum], ymm

 private:
  enum Mandatory { k_66 = 1, k_F3 = 2 };
  enum Base { kRsi = 6, kRdi = 7 };
  static constexpr int kNone = 0;  // stored inverted

  // The last byte of a VEX prefix: 256 bits.
  static int last(Mandatory pp, int source) { return (~source & 15) << 3 | 4 | pp; }
  // VEX of two bytes, map 0F.
  void prefix(Mandatory pp, int reg, int source) { bytes(static_cast<uint32_t>(0xc5 | ((~reg >> 3 & 1) << 7 | last(pp, source)) << 8), 2); }
  void registers(uint8_t opcode, int reg, int source, int rm) {
    prefix(k_66, reg, source);
    bytes(opcode | (0xc0u | static_cast<uint32_t>((reg & 7) << 3 | rm)) << 8, 2);
  }
  void memory(Mandatory pp, uint8_t opcode, int reg, int source, int32_t at, Base base) {
    prefix(pp, reg, source);
    bytes(opcode | (0x80u | static_cast<uint32_t>((reg & 7) << 3 | base)) << 8, 2);
    bytes(static_cast<uint32_t>(at), 4);
  }
};

}  // namespace tritkit

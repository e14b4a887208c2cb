// What the CPU and the operating system let kernels use, and the order of the instruction sets.
#pragma once
#include <cstddef>
#include <string>

namespace tritkit {

struct CpuFeatures {
  bool avx2 = false;        // AVX2, and the system saves ymm registers
  bool avxvnni = false;     // AVX2 and the VEX form of the dot product (AVX-VNNI)
  bool avx512vnni = false;  // AVX-512 F, BW, VL, DQ and VNNI, and the system saves zmm and mask registers
  bool amx = false;         // that, AMX-INT8, and the system let this process have tile registers (asked for here; Linux only)
};

// Detected once; all false where the CPU is not x86.
const CpuFeatures& cpu_features();

// Names from the plainest to the widest: "scalar", "avx2", "avxvnni", "avx512vnni", "amx".
const char* const* isa_names(size_t* count);

// Position of `name` in isa_names(), or -1.
int isa_rank(const char* name);

// Whether this CPU runs kernels of the instruction set; false for an unknown name.
bool cpu_has_isa(const char* name);

// The CPU's name and version, one line: what a measurement was made on.
std::string cpu_model();

// As this thread runs now: measured once, by additions that wait for one another.
double cycles_per_nanosecond();

// 512-bit additions a cycle, measured once: about 2 on CPUs with two units of that width, 4 on those with four. 0 without AVX512-VNNI.
double wide_additions_per_cycle();

}  // namespace tritkit

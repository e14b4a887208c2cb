// The machine code of the emitter, read back by a disassembler that shares nothing with it: every instruction form, with every register
// and displacements of both signs and all sizes.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "kernels/baked/emitter.h"

using namespace tritkit;

namespace {

std::string hex(long value) {
  char text[32];
  std::snprintf(text, sizeof text, value < 0 ? "-0x%lx" : "0x%lx", value < 0 ? -value : value);
  return text;
}

// What AT&T syntax calls an emitter's instructions.
struct Names {
  const char *vector, *load, *clear, *store;
  int first_sum, first_load;
  std::string sum(int i) const { return vector + std::to_string(first_sum + i); }
  std::string x(int i) const { return vector + std::to_string(first_load + i); }
};
constexpr Names kNames512 = {"%zmm", "vmovdqu16 ", "vpxorq ", "vmovdqa64 ", 0, 24};
constexpr Names kNames256 = {"%ymm", "vmovdqu ", "vpxor ", "vmovdqa ", 4, 0};

// Every form with every sum and load; the list is what they should read as.
template <class Emitter>
std::vector<std::string> emit_all(const Names& names, std::vector<uint8_t>* code) {
  Emitter emit(code);
  std::vector<std::string> expected;
  const int32_t places[] = {0, 64, -64, 126, 0x12345678, -0x7fffffff};
  for (int i = 0; i < Emitter::kSums * Emitter::kLoads; ++i) {
    const int j = i % Emitter::kLoads, s = i / Emitter::kLoads;
    const int32_t at = places[i % 6];
    const std::string memory = hex(at) + "(%rdi)", sum = names.sum(s), x = names.x(j);
    const int a = (j + s) % Emitter::kLoads, b = (j + 3 * s + 1) % Emitter::kLoads;
    emit.reserve(11);
    emit.load(j, at), expected.push_back(names.load + memory + "," + x);
    for (const bool minus : {false, true}) {
      const std::string name = minus ? "vpsubw " : "vpaddw ";
      emit.add(s, j, minus), expected.push_back(name + x + "," + sum + "," + sum);
      emit.add_memory(s, at, minus), expected.push_back(name + memory + "," + sum + "," + sum);
      emit.combine(j, a, b, minus), expected.push_back(name + names.x(b) + "," + names.x(a) + "," + x);
    }
    emit.clear(s), expected.push_back(names.clear + sum + "," + sum + "," + sum);
    emit.resume(s), expected.push_back(names.store + hex(64 * s) + "(%rsi)," + sum);
    emit.store(s), expected.push_back(names.store + sum + "," + hex(64 * s) + "(%rsi)");
    emit.ret(), expected.push_back("ret");
  }
  emit.finish();
  return expected;
}

// The instructions of `code` as objdump reads them, one space between name and operands.
std::vector<std::string> disassemble(const std::vector<uint8_t>& code) {
  char name[] = "/tmp/emitter_test_XXXXXX";
  const int file = mkstemp(name);
  if (file < 0 || write(file, code.data(), code.size()) != static_cast<ssize_t>(code.size())) std::abort();
  close(file);
  FILE* const pipe = popen((std::string("objdump -D -b binary -m i386:x86-64 --no-show-raw-insn ") + name).c_str(), "r");
  std::vector<std::string> lines;
  char line[256];
  while (pipe && std::fgets(line, sizeof line, pipe)) {
    const char* at = line;
    while (*at && *at != ':') ++at;
    if (*at != ':' || at[1] != '\t') continue;
    std::string text;
    for (at += 2; *at && *at != '\n'; ++at) {
      if (*at != ' ' || (!text.empty() && text.back() != ' ')) text += *at;
    }
    while (!text.empty() && text.back() == ' ') text.pop_back();
    lines.push_back(text == "retq" ? "ret" : text);
  }
  const int status = pipe ? pclose(pipe) : 1;
  unlink(name);
  if (status != 0) std::printf("objdump (binutils) did not run\n");
  return lines;
}

// 0x0(%rdi) and (%rdi) are one address.
std::string normal(std::string text) {
  const size_t zero = text.find("0x0(");
  if (zero != std::string::npos && (zero == 0 || text[zero - 1] == ' ' || text[zero - 1] == ',')) text.erase(zero, 3);
  return text;
}

template <class Emitter>
int check(const Names& names) {
  std::vector<uint8_t> code;
  const std::vector<std::string> expected = emit_all<Emitter>(names, &code), read = disassemble(code);
  int wrong = expected.size() != read.size();
  for (size_t i = 0; i < expected.size() && i < read.size(); ++i) {
    if (normal(expected[i]) == normal(read[i])) continue;
    if (wrong < 9) std::printf("instruction %zu is %s, not %s\n", i, read[i].c_str(), expected[i].c_str());
    ++wrong;
  }
  std::printf("emitter of %s: %zu instructions, %zu read back, %d wrong\n", names.vector + 1, expected.size(), read.size(), wrong);
  return wrong;
}

}  // namespace

int main() { return check<Emitter512>(kNames512) + check<Emitter256>(kNames256) != 0; }

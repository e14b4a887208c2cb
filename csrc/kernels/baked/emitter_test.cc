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

std::string zmm(int i) { return "%zmm" + std::to_string(i); }

std::string hex(long value) {
  char text[32];
  std::snprintf(text, sizeof text, value < 0 ? "-0x%lx" : "0x%lx", value < 0 ? -value : value);
  return text;
}

// What AT&T syntax calls each instruction, in the order they are emitted.
std::vector<std::string> emit_all(Emitter* emit) {
  std::vector<std::string> expected;
  const int32_t places[] = {0, 64, -64, 126, 0x12345678, -0x7fffffff};
  for (int i = 0; i < 32; ++i) {
    const int j = (5 * i + 3) % 32;
    const int32_t at = places[i % 6];
    const std::string memory = hex(at) + "(%rdi)";
    emit->reserve(8);
    emit->load(i, at), expected.push_back("vmovdqu16 " + memory + "," + zmm(i));
    emit->add(i, j), expected.push_back("vpaddw " + zmm(j) + "," + zmm(i) + "," + zmm(i));
    emit->subtract(i, j), expected.push_back("vpsubw " + zmm(j) + "," + zmm(i) + "," + zmm(i));
    emit->add_memory(i, at), expected.push_back("vpaddw " + memory + "," + zmm(i) + "," + zmm(i));
    emit->subtract_memory(i, at), expected.push_back("vpsubw " + memory + "," + zmm(i) + "," + zmm(i));
    emit->clear(i), expected.push_back("vpxorq " + zmm(i) + "," + zmm(i) + "," + zmm(i));
    emit->store(i, static_cast<int8_t>(i)), expected.push_back("vmovdqa64 " + zmm(i) + "," + hex(64 * i) + "(%rsi)");
    emit->ret(), expected.push_back("ret");
  }
  emit->finish();
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

}  // namespace

int main() {
  std::vector<uint8_t> code;
  Emitter emit(&code);
  const std::vector<std::string> expected = emit_all(&emit), read = disassemble(code);
  int wrong = expected.size() != read.size();
  for (size_t i = 0; i < expected.size() && i < read.size(); ++i) {
    if (normal(expected[i]) == normal(read[i])) continue;
    std::printf("instruction %zu is %s, not %s\n", i, read[i].c_str(), expected[i].c_str());
    ++wrong;
  }
  std::printf("emitter: %zu instructions, %zu read back, %d wrong\n", expected.size(), read.size(), wrong);
  return wrong != 0;
}

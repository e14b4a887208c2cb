// The whole test harness: EXPECT prints the line that failed; main returns expect_failures().
#pragma once
#include <cstdio>

namespace tritkit_test {

inline int& failures() {
  static int count = 0;
  return count;
}

inline void expect(bool good, const char* text, const char* file, int line) {
  if (good) return;
  ++failures();
  std::printf("%s:%d: failed: %s\n", file, line, text);
}

inline int report(const char* name) {
  std::printf("%s: %s\n", name, failures() ? "FAILED" : "ok");
  return failures() ? 1 : 0;
}

}  // namespace tritkit_test

#define EXPECT(condition) ::tritkit_test::expect(static_cast<bool>(condition), #condition, __FILE__, __LINE__)

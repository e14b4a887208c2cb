#include "base/error.h"

namespace tritkit {

std::string printable(std::string_view text) {
  constexpr size_t limit = 100;
  std::string result;
  for (char c : text.substr(0, limit)) result += (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) ? '?' : c;
  return result + (text.size() > limit ? "..." : "");
}

std::string quoted(std::string_view text) { return "'" + printable(text) + "'"; }

}  // namespace tritkit

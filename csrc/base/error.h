// Errors inside the library: thrown as Error, turned into a status and a sentence at the C API.
#pragma once
#include <stdexcept>
#include <string>
#include <string_view>

#include "tritkit.h"

namespace tritkit {

class Error : public std::runtime_error {
 public:
  Error(tk_status status, const std::string& sentence) : std::runtime_error(sentence), status(status) {}
  const tk_status status;
};

[[noreturn]] inline void bad_model(const std::string& sentence) { throw Error(TK_BAD_MODEL, sentence); }
[[noreturn]] inline void bad_argument(const std::string& sentence) { throw Error(TK_BAD_ARGUMENT, sentence); }
[[noreturn]] inline void unsupported(const std::string& sentence) { throw Error(TK_UNSUPPORTED, sentence); }

// Text from a file, fit for a message: at most 100 bytes, control characters replaced; and the same between quotes.
std::string printable(std::string_view text);
std::string quoted(std::string_view text);

}  // namespace tritkit

// The file beside a network that keeps what was found to be the fastest way of each step. It chooses between kernels that all give the
// same bits, so whatever it says costs time at most; one that is damaged, or of another network, CPU, version or thread count, is
// not used.
#pragma once
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/options.h"
#include "runtime/step.h"

namespace tritkit {

class TunedFile {
 public:
  // An empty path is a file that is never there.
  TunedFile(const std::string& path, std::string_view network, const Options& options);

  // Choices by number of step; empty where the file is not to be used. `note` says what was found.
  std::map<size_t, Choice> read(size_t steps, std::string* note) const;
  // Writes a temporary file, then renames it. A failure goes to `note`.
  void write(const std::vector<std::unique_ptr<Step>>& steps, std::string* note) const;

 private:
  const std::string path_;
  std::string header_;  // what the choices are for
};

}  // namespace tritkit

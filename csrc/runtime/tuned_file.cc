#include "runtime/tuned_file.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstring>

#include "base/cpu.h"
#include "base/error.h"

#ifndef TRITKIT_VERSION
#define TRITKIT_VERSION "0.0.0"
#endif

namespace tritkit {
namespace {

constexpr size_t max_file = size_t{4} << 20;
constexpr int64_t max_batch = 1024, max_nanoseconds = int64_t{1} << 50;

using File = std::unique_ptr<std::FILE, int (*)(std::FILE*)>;

// Tells networks apart; whoever makes two of one hash on purpose gets a slower session.
uint64_t hash_of(std::string_view bytes) {
  uint64_t hash = 0xcbf29ce484222325;
  for (size_t i = 0; i < bytes.size(); i += 8) {
    uint64_t word = 0;
    std::memcpy(&word, bytes.data() + i, std::min<size_t>(8, bytes.size() - i));
    hash = (hash ^ word) * 0x100000001b3;
    hash ^= hash >> 29;
  }
  return hash;
}

std::string contents(const std::string& path, bool* there) {
  const File file(std::fopen(path.c_str(), "rb"), std::fclose);
  *there = file != nullptr;
  std::string text(max_file, '\0');
  text.resize(file ? std::fread(text.data(), 1, max_file, file.get()) : 0);
  return text;
}

// "step 3 way 2 baked_from 0 nanoseconds 120 110 80 0 0"
bool parse(const std::string& line, size_t steps, std::map<size_t, Choice>* choices) {
  size_t step = 0;
  int plain = 0, end = 0;
  Choice choice;
  int64_t* const ns = choice.nanoseconds;
  const char* const form = "step %zu way %d baked_from %" SCNd64 " nanoseconds %" SCNd64 " %" SCNd64 " %" SCNd64 " %" SCNd64 " %" SCNd64 "%n";
  const int fields = std::sscanf(line.c_str(), form, &step, &plain, &choice.baked_from, ns, ns + 1, ns + 2, ns + 3, ns + 4, &end);
  if (fields != 8 || static_cast<size_t>(end) != line.size() || step >= steps || plain < 0 || plain >= Choice::baked) return false;
  if (choice.baked_from < 0 || choice.baked_from > max_batch) return false;
  for (int way = 0; way < Choice::kWays; ++way) {
    if (ns[way] < 0 || ns[way] > max_nanoseconds) return false;
  }
  choice.plain = static_cast<Choice::Way>(plain);
  return choices->emplace(step, choice).second;
}

}  // namespace

TunedFile::TunedFile(const std::string& path, std::string_view network, const Options& options) : path_(path) {
  if (path_.empty()) return;
  char hash[17];
  std::snprintf(hash, sizeof hash, "%016" PRIx64, hash_of(network));
  header_ = std::string("tritkit tuned 3\nnetwork ") + hash + " " + std::to_string(network.size()) + "\ncpu " + cpu_model() + "\nversion " TRITKIT_VERSION +
            "\nthreads " + std::to_string(options.threads) + " isa " + (options.isa.empty() ? "all" : options.isa) + " code_limit " +
            std::to_string(options.code_limit) + "\n";
}

std::map<size_t, Choice> TunedFile::read(size_t steps, std::string* note) const {
  if (path_.empty()) return {};
  bool there = false;
  const std::string text = contents(path_, &there);
  if (!there) return {};
  *note = path_ + " is of another network, CPU, version or option; ";
  if (text.compare(0, header_.size(), header_) != 0) return {};
  *note = path_ + " is damaged; ";
  std::map<size_t, Choice> choices;
  for (size_t at = header_.size(); text.compare(at, std::string::npos, "end\n") != 0;) {
    const size_t end = text.find('\n', at);
    if (end == std::string::npos || !parse(text.substr(at, end - at), steps, &choices)) return {};
    at = end + 1;
  }
  *note = "the choices of " + path_ + " were taken";
  return choices;
}

void TunedFile::write(const std::vector<std::unique_ptr<Step>>& steps, std::string* note) const {
  const std::string temporary = path_ + ".tmp" + std::to_string(getpid());
  const auto failed = [&] { *note += path_ + " could not be written: " + std::strerror(errno); };
  File file(std::fopen(temporary.c_str(), "wb"), std::fclose);
  if (!file) return failed();
  std::fputs(header_.c_str(), file.get());
  for (size_t i = 0; i < steps.size(); ++i) {
    const Choice* const c = steps[i]->choice();
    if (!c) continue;
    std::fprintf(file.get(), "step %zu way %d baked_from %" PRId64 " nanoseconds", i, static_cast<int>(c->plain), c->baked_from);
    for (const int64_t taken : c->nanoseconds) std::fprintf(file.get(), " %" PRId64, taken);
    std::fputc('\n', file.get());
  }
  const bool written = std::fputs("end\n", file.get()) >= 0 && std::fflush(file.get()) == 0 && !std::ferror(file.get());
  file.reset();
  if (!written || std::rename(temporary.c_str(), path_.c_str()) != 0) {
    failed();
    std::remove(temporary.c_str());
    return;
  }
  *note += "it was tried which kernels are the fastest, and " + path_ + " keeps it";
}

}  // namespace tritkit

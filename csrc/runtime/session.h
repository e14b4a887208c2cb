// A loaded network: plan, threads, working memory. Calls of run take turns; a fork waits for the turn, so that the child finds
// the session at rest.
#pragma once
#include <memory>
#include <mutex>
#include <string_view>
#include <vector>

#include "base/memory.h"
#include "base/threads.h"
#include "runtime/options.h"
#include "runtime/step.h"

namespace tritkit {

class Session {
 public:
  Session(std::string_view file, const Options& options);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  // nanoseconds: null, or one number a step to add its time to.
  void run(const tk_tensor* inputs, size_t input_count, const tk_tensor* outputs, size_t output_count, int64_t* nanoseconds);

  int64_t arena_bytes(int64_t batch) const;  // -1 where it does not fit
  int threads() const { return pool_.size(); }
  const std::string& tuned() const { return tuned_; }
  const std::vector<std::unique_ptr<Step>>& steps() const { return steps_; }
  const std::vector<Value>& inputs() const { return inputs_; }
  const std::vector<Value>& outputs() const { return outputs_; }
  const std::vector<std::pair<std::string, std::string>>& metadata() const { return metadata_; }

 private:
  friend class ForkGuard;
  int64_t check(const tk_tensor* inputs, size_t input_count, const tk_tensor* outputs, size_t output_count) const;
  void check_memory(int64_t batch) const;
  void reserve(int64_t batch);
  void execute(const Frame& frame, int64_t* nanoseconds);
  void tune();

  std::vector<Value> inputs_, outputs_;
  std::vector<bool> nan_found_later_;  // [input]: by the steps that quantize it, so that it is read once
  std::vector<std::pair<std::string, std::string>> metadata_;
  std::vector<std::unique_ptr<Step>> steps_;
  std::string tuned_;  // what became of options.tuned
  int64_t image_bytes_ = 0;  // of the arena, an image
  ThreadPool pool_;
  std::mutex turn_;
  AlignedBuffer arena_, scratch_;
  int64_t scratch_bytes_ = 0;  // a thread
  std::vector<const float*> input_data_;
  std::vector<float*> output_data_;
  Session* next_ = nullptr;  // all sessions, for the fork handlers
};

}  // namespace tritkit

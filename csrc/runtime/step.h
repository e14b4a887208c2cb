// One step of a plan, ready to run at any batch: kernel, packed weights, places of its tensors.
#pragma once
#include <atomic>
#include <memory>
#include <string>

#include "kernels/image.h"
#include "model/graph.h"

namespace tritkit {

// Where a tensor lives. In the arena every tensor is a multiple of 64 bytes an image, so all offsets scale with the batch
// and one plan serves every batch.
struct Place {
  enum Kind { none, arena, input, output } kind = none;
  int index = 0;       // of the caller's input or output
  int64_t offset = 0;  // arena: bytes an image before this tensor
  int64_t bytes = 0;   // bytes an image
  int64_t origin = 0;  // pixel (0, 0) of image 0, behind the halo
  Image image;         // u8 tensors
};

// One call of run.
struct Frame {
  int64_t batch = 0;
  uint8_t* arena = nullptr;
  const float* const* inputs = nullptr;
  float* const* outputs = nullptr;
  std::atomic<int64_t>* nan_image = nullptr;  // set by a step that meets a NaN it cannot quantize
  uint8_t* scratch = nullptr;  // working memory of part 0 of a step, `scratch_bytes` before that of part 1, ...
  int64_t scratch_bytes = 0;

  uint8_t* codes(const Place& place) const { return arena + place.offset * batch + place.origin; }
  const float* floats(const Place& place) const {
    return place.kind == Place::input ? inputs[place.index] : writable_floats(place);
  }
  float* writable_floats(const Place& place) const {
    return place.kind == Place::output ? outputs[place.index] : reinterpret_cast<float*>(arena + place.offset * batch);
  }
};

struct StepInfo {
  std::string name, op, kernel = "scalar";
  Value input, output;
  int64_t weights = 0, nonzero = 0, packed_bytes = 0, macs = 0, code_bytes = 0;
  int64_t dense_nanoseconds = 0, unpacked_nanoseconds = 0, gather_nanoseconds = 0, winograd_nanoseconds = 0, baked_nanoseconds = 0;  // of an image on one thread, where timed
  int64_t predicted_nanoseconds = 0;  // the same by the cost model, of what runs
};

// The best of several ways to run a step.
struct Choice {
  enum Way { dense, unpacked, gather, winograd, baked };
  static constexpr int kWays = 5;
  Way plain = dense;       // never baked
  int64_t baked_from = 0;  // baked from this batch on; 0: never
  int64_t nanoseconds[kWays] = {};
};

class Step {
 public:
  virtual ~Step() = default;
  // Part `part` of `parts` of the work; parts run at the same time on different threads. No allocation, no exception.
  virtual void run(const Frame& frame, int64_t part, int64_t parts) const = 0;
  // Bytes of working memory that a part needs.
  virtual int64_t scratch_bytes() const { return 0; }
  // Some steps know several ways to run: at first way 0 does. `try_way` switches to another, false where the step has no such way;
  // `choose` keeps the best by the nanoseconds of one image on one thread each way took, 0 for those not tried.
  virtual bool try_way(int) { return false; }
  virtual void choose(const int64_t*) {}
  // Null where there was nothing to choose.
  virtual const Choice* choice() const { return nullptr; }

  StepInfo info;
  int64_t nanoseconds = 0;  // an image's rough cost on one thread: is it worth waking others?
};

// The part-th of `parts` even shares of `units`.
inline Rows share(int64_t units, int64_t part, int64_t parts) { return {units * part / parts, units * (part + 1) / parts}; }

}  // namespace tritkit

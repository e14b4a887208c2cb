#include "runtime/session.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <map>
#include <string>

#include "base/checked.h"
#include "runtime/fork_guard.h"
#include "runtime/steps.h"
#include "runtime/tuned_file.h"

namespace tritkit {
namespace {

constexpr size_t max_nodes = 20000;       // the memory plan takes their square
constexpr int64_t worth_waking = 4000;    // nanoseconds of the longest step below which other threads cost more than they save
constexpr int64_t worth_sharing = 1500;   // the same of a step while they are awake
constexpr size_t max_kernels = 64;

std::string shape_of(const Value& value) {
  std::string text = "[N, " + std::to_string(value.channels);
  if (value.rank == 4) text += ", " + std::to_string(value.height) + ", " + std::to_string(value.width);
  return text + "]";
}

std::string shape_of(const tk_tensor& tensor) {
  std::string text = "[";
  for (int32_t i = 0; i < tensor.rank; ++i) text += (i ? ", " : "") + std::to_string(tensor.dims[i]);
  return text + "]";
}

void check_tensor(const tk_tensor& tensor, const Value& value, const std::string& name, int64_t batch) {
  if (tensor.dtype != TK_FLOAT32) bad_argument(name + " must be float32");
  if (tensor.rank < 1 || tensor.rank > TK_MAX_RANK) bad_argument(name + " has the rank " + std::to_string(tensor.rank));
  const bool same = tensor.rank == value.rank && tensor.dims[1] == value.channels &&
                    (value.rank == 2 || (tensor.dims[2] == value.height && tensor.dims[3] == value.width));
  if (!same) bad_argument(name + " has the shape " + shape_of(tensor) + ", allowed is " + shape_of(value));
  if (tensor.dims[0] < 1) bad_argument(name + " has a batch of " + std::to_string(tensor.dims[0]) + ", allowed is 1 or more");
  if (batch > 0 && tensor.dims[0] != batch) {
    bad_argument(name + " has a batch of " + std::to_string(tensor.dims[0]) + ", that of the first input is " + std::to_string(batch));
  }
  if (!tensor.data) bad_argument(name + " has no data");
}

bool has_nan(const float* data, int64_t count) {
  int32_t found = 0;
  for (int64_t i = 0; i < count; ++i) found |= data[i] != data[i];
  return found != 0;
}

// Looks at images [begin, end).
void refuse_nan(const float* data, const Value& value, int64_t begin, int64_t end) {
  for (int64_t n = begin; n < end; ++n) {
    if (has_nan(data + n * value.elements(), value.elements())) {
      bad_argument("image " + std::to_string(n) + " of input " + quoted(value.name) + " holds a NaN, which no quantized network can answer");
    }
  }
}

// Whether nothing reads the value but nodes that quantize it, which find a NaN as they go.
bool only_quantized(const Graph& graph, const std::vector<PlannedNode>& nodes, int value) {
  return std::all_of(nodes.begin(), nodes.end(), [&](const PlannedNode& node) {
    const bool reads = node.residual == value || std::find(node.inputs.begin(), node.inputs.end(), value) != node.inputs.end();
    return !reads || std::holds_alternative<Quantize>(graph.nodes[node.node].spec);
  });
}

int64_t now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::string gigabytes(int64_t bytes) { return std::to_string(bytes / 100000000 / 10) + "." + std::to_string(bytes / 100000000 % 10) + " GB"; }

}  // namespace

Session::Session(std::string_view file, const Options& options) : pool_(options.threads) {
  const Graph graph = read_graph(file);
  if (graph.nodes.size() > max_nodes) unsupported("the network has " + std::to_string(graph.nodes.size()) + " nodes, this engine runs 20000 at most");
  const std::vector<PlannedNode> nodes = simplify(graph);
  const Layout layout = lay_out(graph, nodes);
  const ConvKernel* kernels[max_kernels];
  const char* isa = options.engine == Engine::reference ? "scalar" : options.isa.empty() ? nullptr : options.isa.c_str();
  const size_t kernel_count = conv_kernels(isa, kernels, max_kernels);
  size_t code_left = options.code_limit;
  const bool keeps = options.engine == Engine::fastest && !options.tuned.empty();
  const TunedFile kept(keeps ? options.tuned : "", file, options);
  const std::map<size_t, Choice> known = kept.read(nodes.size(), &tuned_);
  for (const PlannedNode& node : nodes) {
    const auto found = known.find(steps_.size());
    steps_.push_back(make_step({graph, layout, kernels, kernel_count, options, &code_left, found == known.end() ? nullptr : &found->second}, node));
  }
  for (int index : graph.inputs) {
    inputs_.push_back(graph.values[index]);
    nan_found_later_.push_back(only_quantized(graph, nodes, index));
  }
  for (int index : graph.outputs) outputs_.push_back(graph.values[index]);
  metadata_ = graph.metadata;
  image_bytes_ = layout.arena_bytes;
  input_data_.resize(inputs_.size());
  output_data_.resize(outputs_.size());
  for (const auto& step : steps_) scratch_bytes_ = std::max(scratch_bytes_, round_up(step->scratch_bytes(), 64));
  scratch_ = AlignedBuffer(static_cast<size_t>(checked_mul(scratch_bytes_, pool_.size())));
  if (options.engine == Engine::fastest && known.empty()) tune();
  if (keeps && known.empty()) kept.write(steps_, &tuned_);
  ForkGuard::add(this);
}

// Steps that know several ways to run try them on an image of zeros, in turn and within the whole network: alone, a layer would find
// its weights in caches that they do not stay in. What an image holds does not change the time.
void Session::tune() {
  constexpr int kRuns = 3;
  if (std::none_of(steps_.begin(), steps_.end(), [](const auto& step) { return step->try_way(0); })) return;
  check_memory(1);
  reserve(1);
  std::vector<std::vector<float>> buffers;
  const auto room = [&buffers](const Value& value) { return buffers.emplace_back(static_cast<size_t>(value.elements())).data(); };
  for (size_t i = 0; i < inputs_.size(); ++i) input_data_[i] = room(inputs_[i]);
  for (size_t i = 0; i < outputs_.size(); ++i) output_data_[i] = room(outputs_[i]);
  std::atomic<int64_t> nan_image{-1};
  const Frame frame{1, arena_.data(), input_data_.data(), output_data_.data(), &nan_image, scratch_.data(), scratch_bytes_};
  std::vector<std::array<int64_t, Choice::kWays>> best(steps_.size());
  for (int way = 0; way < Choice::kWays; ++way) {
    std::vector<bool> tried;
    for (const auto& step : steps_) tried.push_back(step->try_way(way));
    for (int run = 0; run < kRuns; ++run) {
      for (size_t i = 0; i < steps_.size(); ++i) {
        const int64_t before = now();
        steps_[i]->run(frame, 0, 1);
        const int64_t taken = now() - before;
        if (tried[i] && (best[i][way] == 0 || taken < best[i][way])) best[i][way] = taken;
      }
    }
  }
  for (size_t i = 0; i < steps_.size(); ++i) steps_[i]->choose(best[i].data());
}

Session::~Session() { ForkGuard::remove(this); }

int64_t Session::arena_bytes(int64_t batch) const {
  int64_t bytes;
  if (batch < 1 || __builtin_mul_overflow(batch, image_bytes_, &bytes)) return -1;
  return bytes;
}

int64_t Session::check(const tk_tensor* inputs, size_t input_count, const tk_tensor* outputs, size_t output_count) const {
  if (input_count != inputs_.size() || output_count != outputs_.size() || !inputs || !outputs) {
    bad_argument("given are " + std::to_string(input_count) + " inputs and " + std::to_string(output_count) + " outputs, the network has " +
                 std::to_string(inputs_.size()) + " and " + std::to_string(outputs_.size()));
  }
  int64_t batch = 0;
  for (size_t i = 0; i < input_count; ++i) {
    check_tensor(inputs[i], inputs_[i], "input " + quoted(inputs_[i].name), batch);
    batch = inputs[0].dims[0];
  }
  for (size_t i = 0; i < output_count; ++i) check_tensor(outputs[i], outputs_[i], "output " + quoted(outputs_[i].name), batch);
  return batch;
}

void Session::check_memory(int64_t batch) const {
  const int64_t bytes = arena_bytes(batch);
  if (bytes < 0 || bytes > physical_memory()) {
    throw Error(TK_OUT_OF_MEMORY, "a batch of " + std::to_string(batch) + " needs " + (bytes < 0 ? "more than 2^63 bytes" : gigabytes(bytes)) +
                                      " for activations, this machine has " + gigabytes(physical_memory()) + "; run a smaller batch");
  }
}

void Session::reserve(int64_t batch) {
  const size_t bytes = static_cast<size_t>(arena_bytes(batch));
  if (bytes <= arena_.size()) return;
  arena_ = AlignedBuffer();  // frees before it asks for more
  arena_ = AlignedBuffer(bytes);
}

void Session::run(const tk_tensor* inputs, size_t input_count, const tk_tensor* outputs, size_t output_count, int64_t* nanoseconds) {
  const int64_t batch = check(inputs, input_count, outputs, output_count);
  check_memory(batch);
  for (size_t i = 0; i < input_count; ++i) {
    if (!nan_found_later_[i]) refuse_nan(static_cast<const float*>(inputs[i].data), inputs_[i], 0, batch);
  }
  const std::lock_guard<std::mutex> lock(turn_);
  reserve(batch);
  for (size_t i = 0; i < input_count; ++i) input_data_[i] = static_cast<const float*>(inputs[i].data);
  for (size_t i = 0; i < output_count; ++i) output_data_[i] = static_cast<float*>(outputs[i].data);
  std::atomic<int64_t> nan_image{-1};
  execute({batch, arena_.data(), input_data_.data(), output_data_.data(), &nan_image, scratch_.data(), scratch_bytes_}, nanoseconds);
  if (nan_image < 0) return;
  for (size_t i = 0; i < input_count; ++i) refuse_nan(input_data_[i], inputs_[i], nan_image, nan_image + 1);
  bad_argument("image " + std::to_string(nan_image) + " gives a NaN in a float32 layer, which cannot be quantized");
}

namespace {

struct Stretch {
  const std::unique_ptr<Step>* steps;
  const Frame& frame;
  static void run(void* self, int64_t step, int part, int parts) {
    const Stretch* stretch = static_cast<const Stretch*>(self);
    stretch->steps[step]->run(stretch->frame, part, parts);
  }
};

}  // namespace

// Threads go through steps one after the other that are worth sharing; the caller runs the others.
void Session::execute(const Frame& frame, int64_t* nanoseconds) {
  const int64_t waking = worth_waking / frame.batch, sharing = worth_sharing / frame.batch;
  const bool any = pool_.size() > 1 && std::any_of(steps_.begin(), steps_.end(), [&](const auto& step) { return step->nanoseconds >= waking; });
  const auto shared = [&](size_t i) { return any && steps_[i]->nanoseconds >= sharing; };
  int64_t before = nanoseconds ? now() : 0;
  for (size_t i = 0, end; i < steps_.size(); i = end) {
    end = i + 1;
    if (shared(i)) {
      while (!nanoseconds && end < steps_.size() && shared(end)) ++end;
      Stretch stretch{&steps_[i], frame};
      pool_.run(static_cast<int64_t>(end - i), Stretch::run, &stretch);
    } else {
      steps_[i]->run(frame, 0, 1);
    }
    if (!nanoseconds) continue;
    const int64_t after = now();
    nanoseconds[i] += after - before;
    before = after;
  }
}

}  // namespace tritkit

#include "kernels/pointwise/pointwise.h"

#include "base/round.h"
#include "kernels/pick.h"

namespace tritkit {
namespace {

// Calls row(image, row of it, bytes of it) for each of `rows`.
template <typename Row>
void each_row(const Image& shape, Rows rows, Row row) {
  for (int64_t i = rows.begin; i < rows.end; ++i) row(i / shape.height, i % shape.height, shape.width * shape.pixel);
}

void add(const AddArgs& args, const uint8_t* a, const uint8_t* b, uint8_t* y, Rows rows) {
  each_row(args.y, rows, [&](int64_t n, int64_t i, int64_t bytes) {
    const uint8_t* a_row = a + args.a.at(n, i, 0);
    const uint8_t* b_row = b + args.b.at(n, i, 0);
    uint8_t* y_row = y + args.y.at(n, i, 0);
    for (int64_t k = 0; k < bytes; ++k) {
      const float left = static_cast<float>(a_row[k] - args.a.zero) * args.a_ratio;
      const float right = static_cast<float>(b_row[k] - args.b.zero) * args.b_ratio;
      y_row[k] = round_to_u8(left + right, args.y.zero);
    }
  });
}

void rescale(const RescaleArgs& args, const uint8_t* x, uint8_t* y, Rows rows) {
  each_row(args.y, rows, [&](int64_t n, int64_t i, int64_t bytes) {
    const uint8_t* from = x + args.x.at(n, i, 0);
    uint8_t* to = y + args.y.at(n, i, 0);
    for (int64_t k = 0; k < bytes; ++k) to[k] = round_to_u8(static_cast<float>(from[k] - args.x.zero) * args.ratio, args.y.zero);
  });
}

void clip(const ClipArgs& args, const uint8_t* x, uint8_t* y, Rows rows) {
  each_row(args.y, rows, [&](int64_t n, int64_t i, int64_t bytes) {
    const uint8_t* from = x + args.x.at(n, i, 0);
    uint8_t* to = y + args.y.at(n, i, 0);
    for (int64_t k = 0; k < bytes; ++k) {
      const uint8_t raised = from[k] > args.low ? from[k] : args.low;
      to[k] = raised < args.high ? raised : args.high;
    }
  });
}

}  // namespace

extern const PointwiseKernels pointwise_scalar;
const PointwiseKernels pointwise_scalar = {"scalar", add, rescale, clip};

#if defined(__x86_64__)
extern const PointwiseKernels pointwise_avx2, pointwise_avx512vnni;
const PointwiseKernels& pointwise_kernels(const char* isa_limit) {
  return pick_kernels({&pointwise_avx512vnni, &pointwise_avx2, &pointwise_scalar}, isa_limit);
}
#else
const PointwiseKernels& pointwise_kernels(const char*) { return pointwise_scalar; }
#endif

}  // namespace tritkit

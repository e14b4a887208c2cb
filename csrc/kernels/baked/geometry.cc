#include "kernels/baked/geometry.h"

#include <algorithm>

namespace tritkit {
namespace {

constexpr int64_t kPlaneBytes = 320 * 1024;  // of all planes of a band: they and the sums stay in the second cache

int64_t up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// How many phases taps read: with one tap (or steps of whole strides) only the first.
int64_t used_phases(int64_t kernel, int64_t stride, int64_t dilation) {
  return kernel == 1 || dilation % stride == 0 ? 1 : stride;
}

int64_t extent(int64_t kernel, int64_t stride, int64_t dilation) { return (kernel - 1) * dilation / stride; }

}  // namespace

BakedGeometry::BakedGeometry(const ConvShape& s, const BakedPads& pads)
    : shape_(s),
      channels_(s.in_channels / s.groups),
      phases_h_(used_phases(s.kernel_h, s.stride_h, s.dilation_h)),
      phases_w_(used_phases(s.kernel_w, s.stride_w, s.dilation_w)),
      extent_h_(extent(s.kernel_h, s.stride_h, s.dilation_h)),
      extent_w_(extent(s.kernel_w, s.stride_w, s.dilation_w)) {
  const int64_t shared_columns = s.stride_w == 1 ? std::min({pads.left, pads.right, extent_w_}) : 0;
  const int64_t shared_rows = s.stride_h == 1 ? std::min({pads.top, pads.bottom, extent_h_}) : 0;
  pitch_ = s.out_w + extent_w_ - shared_columns;
  image_rows_ = s.out_h + extent_h_ - shared_rows;
  const int64_t room = kPlaneBytes / 2 / (channels_ * phases());  // positions of a plane
  const int64_t by_blocks = (kBlocks - 1) * kLanes / pitch_;
  const int64_t by_memory = (room - 2 * kLanes - extent_w_) / pitch_;
  const int64_t most = std::min(by_blocks, by_memory - extent_h_);
  if (most < 1) return;
  rows_ = std::max<int64_t>(1, up(s.out_h, up(s.out_h, std::min(most, s.out_h))));
  images_ = rows_ < s.out_h ? 0 : std::max<int64_t>(1, most / image_rows_);
  const int64_t needed = up(std::max(positions(1, rows_), positions(std::max<int64_t>(images_, 1), images_ ? s.out_h : rows_)), kLanes);
  plane_ = (needed | 1) * kLanes;  // an odd number of cache lines: channels spread over all sets of the caches
}

int64_t BakedGeometry::positions(int64_t images, int64_t rows) const {
  return ((images - 1) * image_rows_ + rows + extent_h_) * pitch_ + extent_w_;
}

int64_t BakedGeometry::tap_offset(int64_t ky, int64_t kx) const {
  const int64_t y = ky * shape_.dilation_h, x = kx * shape_.dilation_w;
  const int64_t phase = y % shape_.stride_h * phases_w_ + x % shape_.stride_w;
  return phase * plane_ + y / shape_.stride_h * pitch_ + x / shape_.stride_w;
}

Band BakedGeometry::next_band(int64_t row, int64_t end) const {
  const int64_t image = row / shape_.out_h, first = row % shape_.out_h;
  const int64_t whole = first == 0 ? std::min(images_, (end - row) / shape_.out_h) : 0;
  if (whole > 0) return {image, whole, 0, shape_.out_h};
  return {image, 1, first, std::min({rows_, shape_.out_h - first, end - row})};
}

int32_t BakedGeometry::blocks(const Band& band, Block* blocks, Segment* segments) const {
  int32_t count = 0, used = 0;
  int64_t covered = 0;  // positions before this one have their vector
  for (int64_t n = 0; n < band.images; ++n) {
    for (int64_t r = 0; r < band.rows; ++r) {
      const int64_t begin = (n * image_rows_ + r) * pitch_;
      for (int64_t column = 0; column < shape_.out_w;) {
        const int64_t position = begin + column;
        if (count == 0 || position >= covered) {
          blocks[count++] = {position, used, used};
          covered = position + kLanes;
        }
        const int64_t taken = std::min(shape_.out_w - column, covered - position);
        Block& block = blocks[count - 1];
        segments[used++] = {band.image + n, band.row + r, column, static_cast<int32_t>(position - block.start), static_cast<int32_t>(taken)};
        block.last = used;
        column += taken;
      }
    }
  }
  return count;
}

int64_t BakedGeometry::blocks_of(int64_t images, int64_t* bands) const {
  *bands = 0;
  if (!fits()) return 0;
  std::vector<Block> blocks(kBlocks);
  std::vector<Segment> segments(static_cast<size_t>(max_segments()));
  int64_t count = 0;
  for (int64_t row = 0; row < images * shape_.out_h;) {
    const Band band = next_band(row, images * shape_.out_h);
    count += this->blocks(band, blocks.data(), segments.data());
    row += band.images * band.rows;
    ++*bands;
  }
  return count;
}

BakedGeometry::PlaneRow BakedGeometry::plane_row(const Band& band, int64_t phase, int64_t line) const {
  const int64_t image = band.images == 1 ? 0 : std::min(line / image_rows_, band.images - 1), row = line - image * image_rows_;
  const int64_t y = (band.row + row) * shape_.stride_h + phase / phases_w_, x = phase % phases_w_;
  const bool read = y <= (shape_.out_h - 1) * shape_.stride_h + (shape_.kernel_h - 1) * shape_.dilation_h;
  const int64_t last = (shape_.out_w - 1) * shape_.stride_w + (shape_.kernel_w - 1) * shape_.dilation_w;  // column that any tap reads
  return {band.image + image, y, x, read ? (last - x) / shape_.stride_w + 1 : 0};
}

}  // namespace tritkit

// Where baked convolutions keep their activations: 16-bit planes, one for each input channel and phase of the stride, so that the
// pixels of one tap lie side by side and 32 neighbouring outputs are one vector.
//
// Output (oy, ox) of a band is position oy * pitch + ox; its tap (ky, kx) is `tap_offset(ky, kx)` further on. Halo columns at the end
// of a row serve as those at the beginning of the next, halo rows likewise between images, which keeps few positions unused.
#pragma once
#include <cstdint>
#include <vector>

#include "kernels/conv/conv.h"

namespace tritkit {

// Halo pixels around the input that hold its zero point.
struct BakedPads {
  int64_t top = 0, left = 0, bottom = 0, right = 0;
};

// Some output rows that are computed together: whole images, or a part of the rows of one.
struct Band {
  int64_t image, images, row, rows;  // rows of each image
};

// A run of output pixels of one row within a vector.
struct Segment {
  int64_t image, row, column;
  int32_t lane, count;
};

// 32 positions from `start` on, with the segments [first, last) of a list.
struct Block {
  int64_t start;
  int32_t first, last;
};

class BakedGeometry {
 public:
  BakedGeometry(const ConvShape& shape, const BakedPads& pads);

  static constexpr int64_t kLanes = 32;
  static constexpr int64_t kBlocks = 32;  // of a band at most

  bool fits() const { return rows_ > 0; }
  int64_t channels() const { return channels_; }
  int64_t phases() const { return phases_h_ * phases_w_; }
  int64_t pitch() const { return pitch_; }                        // positions from row to row
  int64_t last_columns() const { return pitch_ + extent_w_; }     // that blocks read of a plane's last row
  int64_t plane() const { return plane_; }                        // positions from one phase's plane to the next
  int64_t elements() const { return channels_ * phases() * plane_ + kLanes; }  // of all planes
  int64_t tap_offset(int64_t ky, int64_t kx) const;               // in positions, with the phase's plane

  // The next band of output rows [row, end), counted over all images.
  Band next_band(int64_t row, int64_t end) const;
  // The vectors that cover a band; both lists are overwritten and have room for `max_segments` and kBlocks.
  int32_t blocks(const Band& band, Block* blocks, Segment* segments) const;
  int64_t max_segments() const { return kBlocks * kLanes; }
  int64_t blocks_of(int64_t images, int64_t* bands) const;  // vectors that images take, and in how many bands

  // A row of one phase's plane within a band: the input row it holds and its columns.
  struct PlaneRow {
    int64_t image, row, column, columns;  // input row and first column, counted from what tap (0, 0) of output (0, 0) reads
  };
  int64_t plane_rows(const Band& band) const { return (band.images - 1) * image_rows_ + band.rows + extent_h_; }  // of one phase
  PlaneRow plane_row(const Band& band, int64_t phase, int64_t line) const;
  int64_t column_step() const { return shape_.stride_w; }

 private:
  int64_t positions(int64_t images, int64_t rows) const;

  ConvShape shape_;
  int64_t channels_;
  int64_t phases_h_, phases_w_;  // phases that taps read: all of the stride, or fewer
  int64_t extent_h_, extent_w_;  // rows and columns of a plane beyond those of the output
  int64_t pitch_, image_rows_;   // positions from row to row, rows from image to image
  int64_t rows_ = 0;             // output rows of a band at most, if they are of one image
  int64_t images_ = 0;           // whole images of a band at most
  int64_t plane_ = 0;
};

}  // namespace tritkit

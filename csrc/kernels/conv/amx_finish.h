// From the sums of AMX tiles to outputs; part of conv_amx.cc.

// Up to four tiles of a line's positions [begin, end), with one part.
struct Block {
  const Part* part;
  int64_t row, period;  // as in Line
  int64_t begin, end;
  int64_t start[4];  // the first position of each tile
};

// Turns a block's sums into outputs, some pixels at a time.
class Finisher {
 public:
  explicit Finisher(const Work& work) : grid_(work.grid), pixels_of_tile_(work.plan.tile) {}

  // Where the next block is written while some() and rest() still finish the one before.
  Block& next_block() { return blocks_[1 - now_]; }
  int32_t* sums() { return sums_; }

  // Goes on with that block, whose sums are sums() from now on; it is done after `times` calls of some(), or one of rest().
  void begin(int64_t times) {
    now_ = 1 - now_;
    block_ = &blocks_[now_];
    pitch_ = block_->part->strip.vectors * kLanes;
    finish_ = pick_finish(block_->part->strip);
    next_ = tile_end_ = block_->begin;
    end_ = block_->end;
    tile_ = 0;
    share_ = ((end_ - next_ + times - 1) / times + 3) / 4 * 4;  // finish_ takes up to four at once
    row_ = block_->row + next_ / block_->period, column_ = next_ % block_->period;
    begin_row();
  }
  void some() {
    const int64_t to = next_ + share_;
    advance(to < end_ ? to : end_);
  }
  void rest() { advance(end_); }

 private:
  void advance(int64_t to) {
    while (next_ < to) {
      if (next_ == tile_end_) begin_tile();
      int64_t count = (to < tile_end_ ? to : tile_end_) - next_;
      const int64_t in_row = grid_.columns - column_, left = in_row > 0 ? in_row : block_->period - column_;
      if (left < count) count = left;
      if (in_row > 0) finish(count);
      next_ += count, column_ += count;
      if (column_ < block_->period) continue;
      column_ = 0, ++row_;
      begin_row();
    }
  }

  void begin_tile() {
    const int64_t start = block_->start[tile_], end = start + pixels_of_tile_;
    tile_end_ = end < end_ ? end : end_;
    tile_sums_ = sums_ + (tile_ * 16 - start) * pitch_;
    ++tile_;
  }

  void begin_row() {
    const int64_t image = row_ / grid_.rows, row = row_ - image * grid_.rows;
    y_ = image * grid_.y_image + row * grid_.y_row;
    r_ = image * grid_.r_image + row * grid_.r_row;
  }

  // The next `count` pixels, which are in one row and one tile.
  void finish(int64_t count) {
    constexpr int64_t kMost = 8;
    const int32_t* sums = tile_sums_ + next_ * pitch_;
    int64_t y = y_ + column_ * grid_.y_column, r = r_ + column_ * grid_.r_column;
    for (; count > 0; count -= kMost, sums += kMost * pitch_, y += kMost * grid_.y_column, r += kMost * grid_.r_column) {
      for (int i = 0; i < kMost; ++i) {
        pixels_.y[i] = y + i * grid_.y_column;
        pixels_.r[i] = r + i * grid_.r_column;
      }
      finish_(block_->part->strip, pixels_, count < kMost ? count : kMost, sums);
    }
  }

  const Grid& grid_;
  const int64_t pixels_of_tile_;
  Finish finish_ = nullptr;
  Block blocks_[2] = {};
  int now_ = 0;  // which of them is being finished
  const Block* block_ = blocks_;
  int64_t pitch_ = 0;                       // of a pixel's sums
  int64_t next_ = 0, end_ = 0, share_ = 0;  // positions
  int64_t tile_ = 0, tile_end_ = 0;         // the next tile, and where this one ends
  int64_t row_ = 0, column_ = 0, y_ = 0, r_ = 0;
  const int32_t* tile_sums_ = nullptr;  // those of position 0
  Pixels pixels_;
  alignas(64) int32_t sums_[(64 + kSums) * 16];  // finish_ takes whole groups, past the last pixel too
};

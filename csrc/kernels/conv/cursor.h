// Where output pixels lie; part of tile.h, in the namespace of an instruction set. Before it stands Pixels.

// Output pixels one after the other, over rows and images; Pixels has room for twice kMost.
template <int kMost>
class Cursor {
 public:
  Cursor(const ConvArgs& args, int64_t group_offset, int64_t pixel)
      : a_(args),
        offset_(group_offset),
        x_step_(args.shape.stride_w * args.x_pixel),
        image_(pixel / (args.shape.out_h * args.shape.out_w)),
        row_(pixel / args.shape.out_w % args.shape.out_h) {
    for (int i = 0; i < kMost; ++i) {
      x_steps_[i] = i * x_step_;
      y_steps_[i] = i * args.y_pixel;
      r_steps_[i] = i * args.r_pixel;
    }
    begin_row(pixel % args.shape.out_w);
  }

  // The next `count` <= kMost of them. Whole vectors are written: what follows those of a row is overwritten, or of no meaning.
  void next(Pixels& pixels, int64_t count) {
    for (int64_t done = 0; done < count;) {
      if (left_ == 0) next_row();
      for (int i = 0; i < kMost; ++i) pixels.x[done + i] = x_ + x_steps_[i];
      for (int i = 0; i < kMost; ++i) pixels.y[done + i] = y_ + y_steps_[i];
      for (int i = 0; i < kMost; ++i) pixels.r[done + i] = r_ + r_steps_[i];
      const int64_t taken = left_ < count - done ? left_ : count - done;
      x_ += taken * x_step_;
      y_ += taken * a_.y_pixel;
      r_ += taken * a_.r_pixel;
      left_ -= taken;
      done += taken;
    }
  }

 private:
  void next_row() {
    if (++row_ == a_.shape.out_h) {
      row_ = 0;
      ++image_;
    }
    begin_row(0);
  }

  void begin_row(int64_t column) {
    left_ = a_.shape.out_w - column;
    x_ = a_.x + offset_ + image_ * a_.x_image + row_ * a_.shape.stride_h * a_.x_row + column * x_step_;
    y_ = image_ * a_.y_image + row_ * a_.y_row + column * a_.y_pixel;
    r_ = image_ * a_.r_image + row_ * a_.r_row + column * a_.r_pixel;
  }

  const ConvArgs& a_;
  int64_t offset_, x_step_, image_, row_, left_;
  const uint8_t* x_;
  int64_t y_, r_;
  int64_t x_steps_[kMost], y_steps_[kMost], r_steps_[kMost];
};

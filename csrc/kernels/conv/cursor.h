// Where output pixels lie; part of tile.h, in the namespace of an instruction set.

// Output pixels one after the other, over rows and images.
class Cursor {
 public:
  Cursor(const ConvArgs& args, int64_t group_offset, int64_t pixel)
      : a_(args),
        offset_(group_offset),
        x_step_(args.shape.stride_w * args.x_pixel),
        image_(pixel / (args.shape.out_h * args.shape.out_w)),
        row_(pixel / args.shape.out_w % args.shape.out_h) {
    begin_row(pixel % args.shape.out_w);
  }

  void next(Pixels& pixels, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
      if (left_ == 0) next_row();
      pixels.x[i] = x_;
      pixels.y[i] = y_;
      pixels.r[i] = r_;
      x_ += x_step_;
      y_ += a_.y_pixel;
      r_ += a_.r_pixel;
      --left_;
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
};

// What the vector kernels of the operations without weights share, after a struct `Lanes`, inside the same namespace.

// clip(rint(value) + zero) of four vectors, as base/round.h: clips first, so that no conversion overflows and a NaN gives 0.
struct Rounder {
  Lanes::F low, high;
  Lanes::I zero;
  explicit Rounder(int32_t z)
      : low(Lanes::splat(static_cast<float>(-z))), high(Lanes::splat(static_cast<float>(255 - z))), zero(Lanes::splat(z)) {}
  Lanes::I operator()(Lanes::F value) const {
    return Lanes::add(Lanes::to_int(Lanes::min(Lanes::max(value, low), high)), zero);
  }
};

inline int64_t offset_of(const Image& image, int64_t n, int64_t y, int64_t x) {
  return n * image.image + y * image.row + x * image.pixel;
}

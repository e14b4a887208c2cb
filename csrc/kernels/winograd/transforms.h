// To the 36 places and back; part of run_avx512vnni.cc, in its namespace.

inline I add16(I a, I b) { return _mm512_add_epi16(a, b); }
inline I sub16(I a, I b) { return _mm512_sub_epi16(a, b); }

// B' d, of six vectors of words.
inline void points_of_inputs(const I* d, I* t) {
  const I even = sub16(d[4], _mm512_slli_epi16(d[2], 2)), odd = sub16(d[3], _mm512_slli_epi16(d[1], 2));
  const I near = sub16(d[4], d[2]), far = _mm512_slli_epi16(sub16(d[3], d[1]), 1);
  t[0] = add16(_mm512_slli_epi16(sub16(d[0], d[2]), 2), near);
  t[1] = add16(even, odd);
  t[2] = sub16(even, odd);
  t[3] = add16(near, far);
  t[4] = sub16(near, far);
  t[5] = sub16(sub16(d[5], d[3]), add16(far, far));
}

// A' m, of six vectors of sums.
inline void pixels_of_products(const I* m, I* y) {
  const I s = Vector::add(m[1], m[2]), d = Vector::sub(m[1], m[2]), t = Vector::add(m[3], m[4]), u = Vector::sub(m[3], m[4]);
  y[0] = Vector::add(Vector::add(m[0], s), t);
  y[1] = Vector::add(d, Vector::add(u, u));
  y[2] = Vector::add(s, _mm512_slli_epi32(t, 2));
  y[3] = Vector::add(Vector::add(d, m[5]), _mm512_slli_epi32(u, 3));
}

// A patch to words[place * step + channel], of each 64 channels first the even ones; the next tile's are `pitch` further.
void transform_inputs(const ConvArgs& a, const Tile& tile, int16_t* words, int64_t step, int64_t pitch) {
  const int64_t bytes = (a.shape.in_channels + 3) / 4 * 4;
  int64_t row[kPatch], column[kPatch];
  for (int64_t i = 0; i < kPatch; ++i) {  // beyond the image something else: no output that is written wants it
    row[i] = least(i, tile.rows + 1) * a.x_row;
    column[i] = least(i, tile.columns + 1) * a.x_pixel;
  }
  const I low = _mm512_set1_epi16(255);
  for (int64_t c = 0; c < bytes; c += 64) {
    const __mmask64 there = bytes - c >= 64 ? ~0ull : (1ull << (bytes - c)) - 1;
    I half[2][kPatch][kPatch];
    for (int i = 0; i < kPatch; ++i) {
      I even[kPatch], odd[kPatch];
      TRITKIT_UNROLL
      for (int j = 0; j < kPatch; ++j) {
        const I x = _mm512_maskz_loadu_epi8(there, tile.x + row[i] + column[j] + c);
        even[j] = _mm512_and_si512(x, low), odd[j] = _mm512_srli_epi16(x, 8);
      }
      points_of_inputs(even, half[0][i]);
      points_of_inputs(odd, half[1][i]);
    }
    for (int64_t h = 0; h < 2; ++h) {
      for (int64_t j = 0; j < kPatch; ++j) {
        I d[kPatch], t[kPatch];
        TRITKIT_UNROLL
        for (int i = 0; i < kPatch; ++i) d[i] = half[h][i][j];
        points_of_inputs(d, t);
        TRITKIT_UNROLL
        for (int i = 0; i < kPatch; ++i) {
          int16_t* const to = words + (kPatch * i + j) * step + c + 32 * h;
          Vector::store(to, t[i]);
          _mm_prefetch(reinterpret_cast<const char*>(to + pitch), _MM_HINT_T0);  // a store that misses waits for its line
        }
      }
    }
  }
}

// Quads of a place's weights to words, times its factor.
template <int OV>
void widen_weights(const int8_t* weights, int64_t quads, int factor, int16_t* words) {
  constexpr int kHalf = 2 * OV * kLanes;
  const I even = _mm512_set1_epi16(static_cast<short>(factor)), odd = _mm512_slli_epi16(even, 8);
  for (int64_t q = 0; q < quads; ++q, weights += 2 * kHalf, words += 2 * kHalf) {
    TRITKIT_UNROLL
    for (int v = 0; v < OV; ++v) {
      const I bytes = Vector::load(weights + 64 * v);
      Vector::store(words + 32 * v, _mm512_maddubs_epi16(even, bytes));
      Vector::store(words + kHalf + 32 * v, _mm512_maddubs_epi16(odd, bytes));
    }
  }
}

// 16 outputs of a tile from products[place * step]: sums of its 16 pixels, `row` words apart.
inline void transform_products(const int32_t* products, int64_t step, I factor, I bias, int32_t* sums, int64_t row) {
  I half[kPatch][kTile];
  TRITKIT_UNROLL
  for (int i = 0; i < kPatch; ++i) {
    I m[kPatch];
    TRITKIT_UNROLL
    for (int j = 0; j < kPatch; ++j) m[j] = Vector::load(products + (kPatch * i + j) * step);
    pixels_of_products(m, half[i]);
  }
  TRITKIT_UNROLL
  for (int j = 0; j < kTile; ++j) {
    I m[kPatch], y[kTile];
    TRITKIT_UNROLL
    for (int i = 0; i < kPatch; ++i) m[i] = half[i][j];
    pixels_of_products(m, y);
    TRITKIT_UNROLL
    for (int i = 0; i < kTile; ++i) {
      const I sum = _mm512_mullo_epi32(_mm512_srai_epi32(y[i], 6), factor);  // / 64, then / 9 and times the unit
      Vector::store(sums + (kTile * i + j) * row, Vector::add(sum, bias));
    }
  }
}

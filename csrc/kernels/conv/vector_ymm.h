// The operations of tile.h on 256-bit registers, but for the dot product: `Dot` has kPixels, kWords and dot(sum, x, w). Part of the
// AVX2 and AVX-VNNI files, inside their namespaces.

struct Vector {
  using I = __m256i;
  using B = __m128i;  // the bytes of a group, see epilogue.h
  using F = __m256;
  using Zero = __m256i;
  static constexpr int kLanes = 8;
  static constexpr int kSums = 2;
  static constexpr int kPixels = Dot::kPixels;
  static constexpr bool kWords = Dot::kWords;
  static constexpr int64_t kDecodedBytes = 81920;  // a strip of 5120 inputs: beside so few outputs decoding does not hide

  static I load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
  static F load_floats(const float* p) { return _mm256_loadu_ps(p); }
  static void store(void* p, I v) { _mm256_store_si256(static_cast<__m256i*>(p), v); }
  static I splat(int32_t v) { return _mm256_set1_epi32(v); }
  static F splat(float v) { return _mm256_set1_ps(v); }

  // `Ways` quads from p, repeated over the vector.
  template <int Ways>
  static I quads(const uint8_t* p) {
    long long pair = 0;
    __builtin_memcpy(&pair, p, Ways == 2 ? 8 : 4);
    return Ways == 2 ? _mm256_set1_epi64x(pair) : _mm256_set1_epi32(static_cast<int>(pair));
  }
  static I dot(I sum, I x, I w) { return Dot::dot(sum, x, w); }

  // Sums of pairs of products in int16; and what `words` of them, times the pairs' `units`, add to int32.
  static I dot_words(I sum, I x, I w) {
    const I pairs = _mm256_maddubs_epi16(x, w);
    __asm__("vpaddw %1, %0, %0" : "+x"(sum) : "x"(pairs));  // else GCC adds the pairs of steps first, for which registers lack
    return sum;
  }
  static I add_words(I sum, I words, I units) { return _mm256_add_epi32(sum, _mm256_madd_epi16(words, units)); }

  // Bits Shift and Shift + 1 of every byte, looked up among the four entries of the byte's lane.
  template <int Shift>
  static I decode(I codes, I table) {
    const I shifted = Shift ? _mm256_srli_epi16(codes, Shift) : codes;
    const I lane = _mm256_broadcastsi128_si256(_mm_set_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0));
    return _mm256_shuffle_epi8(table, _mm256_or_si256(lane, _mm256_and_si256(shifted, _mm256_set1_epi8(3))));
  }

  // Lane d gets lane d xor 1.
  static I exchange(I v) { return _mm256_shuffle_epi32(v, 0xb1); }

  static I load_words(const int16_t* p) { return _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
  static I madd(I a, I b) { return _mm256_madd_epi16(a, b); }
  static I add(I a, I b) { return _mm256_add_epi32(a, b); }
  static I sub(I a, I b) { return _mm256_sub_epi32(a, b); }
  static F add(F a, F b) { return _mm256_add_ps(a, b); }
  static F mul(F a, F b) { return _mm256_mul_ps(a, b); }
  static F min(F a, F b) { return _mm256_min_ps(a, b); }
  static F max(F a, F b) { return _mm256_max_ps(a, b); }
  static F to_float(I v) { return _mm256_cvtepi32_ps(v); }
  static F round(F v) { return _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  static I to_int(F v) { return _mm256_cvtps_epi32(v); }  // by the mode of the thread: to nearest, ties to even

  static void store_floats(uint8_t* p, F v, int64_t count) {
    const I some = _mm256_cmpgt_epi32(splat(static_cast<int32_t>(count)), _mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0));
    _mm256_maskstore_ps(reinterpret_cast<float*>(p), some, v);
  }

  static Zero zero_point(int32_t zero) { return _mm256_set1_epi16(static_cast<short>(zero)); }

  // clip(v + zero), the vectors one after the other; the saturation to int16 before the addition changes nothing, as 0 <= zero <= 255.
  static B narrow(const I* v, Zero zero) {
    const I words = _mm256_adds_epi16(_mm256_packs_epi32(v[0], v[1]), zero);
    const I mixed = _mm256_packus_epi16(words, words);  // dwords 0, 4, 1, 5: lanes 0-3, 4-7 of the first vector, then of the second
    return _mm256_castsi256_si128(_mm256_permutevar8x32_epi32(mixed, _mm256_set_epi32(0, 0, 0, 0, 5, 1, 4, 0)));
  }
  static B in_order(B bytes) { return bytes; }

  // The bytes of a group, OV * kLanes a pixel: where all pixels are neighbours; where they are at `at`; `outputs` of `count` of them.
  static void store_all(uint8_t* y, B bytes) { _mm_storeu_si128(reinterpret_cast<__m128i*>(y), bytes); }
  template <int OV>
  static void store_each(uint8_t* y, const int64_t* at, B bytes) {
    _mm_storel_epi64(reinterpret_cast<__m128i*>(y + at[0]), bytes);
    _mm_storel_epi64(reinterpret_cast<__m128i*>(y + at[kSums / OV - 1]), _mm_srli_si128(bytes, 8));
  }
  template <int OV>
  static void store_some(uint8_t* y, const int64_t* at, int64_t count, int64_t outputs, B bytes) {
    alignas(16) uint8_t some[16];
    _mm_store_si128(reinterpret_cast<__m128i*>(some), bytes);
    for (int64_t p = 0; p < kSums / OV && p < count; ++p) {
      for (int64_t i = 0; i < outputs; ++i) y[at[p] + i] = some[p * kLanes + i];
    }
  }
  template <int OV>
  static void load_bytes(const uint8_t* p, I* v, int64_t count) {
    alignas(16) uint8_t some[16] = {};
    for (int64_t i = 0; count < OV * kLanes && i < count; ++i) some[i] = p[i];
    if (count == OV * kLanes) __builtin_memcpy(some, p, OV * kLanes);
    const __m128i bytes = _mm_load_si128(reinterpret_cast<const __m128i*>(some));
    v[0] = _mm256_cvtepu8_epi32(bytes);
    if constexpr (OV == 2) v[1] = _mm256_cvtepu8_epi32(_mm_srli_si128(bytes, 8));
  }
};

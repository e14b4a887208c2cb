// Codes and floats in 256-bit registers, for the operations without weights. Included inside the namespace of an AVX2 file, after
// <immintrin.h>; nothing here may be shared with files of other instruction sets.

struct Lanes {
  using B = __m256i;  // 32 codes
  using I = __m256i;  // 8 int32
  using F = __m256;
  static constexpr int kBytes = 32, kWords = 8;

  static B load(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
  static void store(uint8_t* p, B v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }
  // The first `count` codes, a multiple of 4; zeros after them.
  static B load_some(const uint8_t* p, int64_t count) { return _mm256_maskload_epi32(reinterpret_cast<const int*>(p), first(count / 4)); }
  static void store_some(uint8_t* p, B v, int64_t count) { _mm256_maskstore_epi32(reinterpret_cast<int*>(p), first(count / 4), v); }
  static B splat_code(uint8_t v) { return _mm256_set1_epi8(static_cast<char>(v)); }
  static B max_code(B a, B b) { return _mm256_max_epu8(a, b); }
  static B min_code(B a, B b) { return _mm256_min_epu8(a, b); }

  // kWords codes as int32.
  static I widen(const uint8_t* p) { return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))); }
  // Four vectors of numbers in [0, 255], in order.
  static B narrow(const I* v) {
    const I mixed = _mm256_packus_epi16(_mm256_packs_epi32(v[0], v[1]), _mm256_packs_epi32(v[2], v[3]));
    return _mm256_permutevar8x32_epi32(mixed, _mm256_set_epi32(7, 3, 6, 2, 5, 1, 4, 0));
  }

  static I load_words(const uint8_t* p) { return load(p); }
  static I splat(int32_t v) { return _mm256_set1_epi32(v); }
  static I add(I a, I b) { return _mm256_add_epi32(a, b); }
  static I sub(I a, I b) { return _mm256_sub_epi32(a, b); }
  static I either(I a, I b) { return _mm256_or_si256(a, b); }
  template <int Bits>
  static I left(I v) { return _mm256_slli_epi32(v, Bits); }
  template <int Bits>
  static I code_at(I v) { return _mm256_and_si256(_mm256_srli_epi32(v, Bits), splat(255)); }

  static F load_floats(const float* p) { return _mm256_loadu_ps(p); }
  static F load_floats(const float* p, int64_t count) { return _mm256_maskload_ps(p, first(count)); }
  static void store_floats(float* p, F v, int64_t count) { _mm256_maskstore_ps(p, first(count), v); }
  static F splat(float v) { return _mm256_set1_ps(v); }
  static F add(F a, F b) { return _mm256_add_ps(a, b); }
  static F mul(F a, F b) { return _mm256_mul_ps(a, b); }
  static F div(F a, F b) { return _mm256_div_ps(a, b); }
  // a > b ? a : b and a < b ? a : b: the second where one is NaN.
  static F max(F a, F b) { return _mm256_max_ps(a, b); }
  static F min(F a, F b) { return _mm256_min_ps(a, b); }
  static F to_float(I v) { return _mm256_cvtepi32_ps(v); }
  static I to_int(F v) { return _mm256_cvtps_epi32(v); }  // by the mode of the thread: to nearest, ties to even

  // Remembers whether a NaN was seen.
  struct NanWatch {
    F seen = _mm256_setzero_ps();
    void look(F v) { seen = _mm256_or_ps(seen, _mm256_cmp_ps(v, v, _CMP_UNORD_Q)); }
    bool any() const { return _mm256_movemask_ps(seen) != 0; }
  };

 private:
  static I first(int64_t count) {
    return _mm256_cmpgt_epi32(splat(static_cast<int32_t>(count)), _mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0));
  }
};

// Codes and floats in 512-bit registers, for the operations without weights. Included inside the namespace of an AVX-512 file, after
// <immintrin.h>; nothing here may be shared with files of other instruction sets.

struct Lanes {
  using B = __m512i;  // 64 codes
  using I = __m512i;  // 16 int32
  using F = __m512;
  static constexpr int kBytes = 64, kWords = 16;

  static B load(const uint8_t* p) { return _mm512_loadu_si512(p); }
  static void store(uint8_t* p, B v) { _mm512_storeu_si512(p, v); }
  // The first `count` codes; zeros after them.
  static B load_some(const uint8_t* p, int64_t count) { return _mm512_maskz_loadu_epi8(first(count), p); }
  static void store_some(uint8_t* p, B v, int64_t count) { _mm512_mask_storeu_epi8(p, first(count), v); }
  static B splat_code(uint8_t v) { return _mm512_set1_epi8(static_cast<char>(v)); }
  static B max_code(B a, B b) { return _mm512_max_epu8(a, b); }
  static B min_code(B a, B b) { return _mm512_min_epu8(a, b); }

  // kWords codes as int32.
  static I widen(const uint8_t* p) { return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
  // Four vectors of numbers in [0, 255], in order.
  static B narrow(const I* v) {
    const I mixed = _mm512_packus_epi16(_mm512_packs_epi32(v[0], v[1]), _mm512_packs_epi32(v[2], v[3]));
    return _mm512_permutexvar_epi32(_mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0), mixed);
  }

  static I load_words(const uint8_t* p) { return load(p); }
  static I splat(int32_t v) { return _mm512_set1_epi32(v); }
  static I add(I a, I b) { return _mm512_add_epi32(a, b); }
  static I sub(I a, I b) { return _mm512_sub_epi32(a, b); }
  static I either(I a, I b) { return _mm512_or_si512(a, b); }
  template <int Bits>
  static I left(I v) { return _mm512_slli_epi32(v, Bits); }
  template <int Bits>
  static I code_at(I v) { return _mm512_and_si512(_mm512_srli_epi32(v, Bits), splat(255)); }

  static F load_floats(const float* p) { return _mm512_loadu_ps(p); }
  static F load_floats(const float* p, int64_t count) { return _mm512_maskz_loadu_ps(some(count), p); }
  static void store_floats(float* p, F v, int64_t count) { _mm512_mask_storeu_ps(p, some(count), v); }
  static F splat(float v) { return _mm512_set1_ps(v); }
  static F add(F a, F b) { return _mm512_add_ps(a, b); }
  static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F div(F a, F b) { return _mm512_div_ps(a, b); }
  // a > b ? a : b and a < b ? a : b: the second where one is NaN.
  static F max(F a, F b) { return _mm512_max_ps(a, b); }
  static F min(F a, F b) { return _mm512_min_ps(a, b); }
  static F to_float(I v) { return _mm512_cvtepi32_ps(v); }
  static I to_int(F v) { return _mm512_cvt_roundps_epi32(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

  // Remembers whether a NaN was seen.
  struct NanWatch {
    __mmask16 seen = 0;
    void look(F v) { seen = static_cast<__mmask16>(seen | _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q)); }
    bool any() const { return seen != 0; }
  };

 private:
  static __mmask64 first(int64_t count) { return count >= 64 ? ~0ull : (1ull << count) - 1; }
  static __mmask16 some(int64_t count) { return static_cast<__mmask16>(first(count)); }
};

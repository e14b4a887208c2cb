// Operations on 512-bit vectors for the convolutions of AVX512-VNNI files; included inside a namespace of their own, after
// <immintrin.h>. No library here: nothing may be shared between instruction sets.

struct Vector {
  using I = __m512i;
  using B = __m512i;  // the bytes of a group, see epilogue.h
  using F = __m512;
  using Zero = __m512i;
  static constexpr int kLanes = 16;
  static constexpr int kSums = 4;
  static constexpr int kPixels = 6;  // 24 sums, 4 weights, quads, codes, two constants: all 32 registers
  static constexpr bool kWords = false;
  static constexpr int64_t kDecodedBytes = 16384;  // decoding hides beside 64 outputs, and their weights would fill the cache

  static I load(const void* p) { return _mm512_loadu_si512(p); }
  static F load_floats(const float* p) { return _mm512_loadu_ps(p); }
  static void store(void* p, I v) { _mm512_store_si512(p, v); }
  static I splat(int32_t v) { return _mm512_set1_epi32(v); }
  static F splat(float v) { return _mm512_set1_ps(v); }

  // `Ways` quads from p, repeated over the vector.
  template <int Ways>
  static I quads(const uint8_t* p) {
    long long pair = 0;
    __builtin_memcpy(&pair, p, Ways == 2 ? 8 : 4);
    return Ways == 2 ? _mm512_set1_epi64(pair) : _mm512_set1_epi32(static_cast<int>(pair));
  }
  static I dot(I sum, I x, I w) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(x), "v"(w));  // the intrinsic makes GCC copy sums, which then do not fit
    return sum;
  }

  // Bits Shift and Shift + 1 of every byte, looked up among the four entries of the byte's lane.
  template <int Shift>
  static I decode(I codes, I table) {
    const I shifted = Shift ? _mm512_srli_epi16(codes, Shift) : codes;
    const I lane = _mm512_broadcast_i32x4(_mm_set_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0));
    return _mm512_shuffle_epi8(table, _mm512_ternarylogic_epi32(lane, shifted, _mm512_set1_epi8(3), 0xf8));  // a | (b & c)
  }

  // Lane d gets lane d xor 1.
  static I exchange(I v) { return _mm512_shuffle_epi32(v, _MM_PERM_CDAB); }

  static I load_words(const int16_t* p) { return _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
  static I madd(I a, I b) { return _mm512_madd_epi16(a, b); }
  static I add(I a, I b) { return _mm512_add_epi32(a, b); }
  static I sub(I a, I b) { return _mm512_sub_epi32(a, b); }
  static F add(F a, F b) { return _mm512_add_ps(a, b); }
  static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F min(F a, F b) { return _mm512_min_ps(a, b); }
  static F max(F a, F b) { return _mm512_max_ps(a, b); }
  static F to_float(I v) { return _mm512_cvtepi32_ps(v); }
  static F round(F v) { return _mm512_roundscale_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  static I to_int(F v) { return _mm512_cvt_roundps_epi32(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

  static void store_floats(void* p, F v, int64_t count) { _mm512_mask_storeu_ps(p, static_cast<__mmask16>(first(count)), v); }

  static Zero zero_point(int32_t zero) { return _mm512_set1_epi16(static_cast<short>(zero)); }

  // clip(v + zero); the saturation to int16 before the addition changes nothing, as 0 <= zero <= 255. In the order that packing
  // leaves: dword 4 l + k has the lanes 4 l .. 4 l + 3 of vector k.
  static B narrow(const I* v, Zero zero) {
    const I low = _mm512_adds_epi16(_mm512_packs_epi32(v[0], v[1]), zero);
    const I high = _mm512_adds_epi16(_mm512_packs_epi32(v[2], v[3]), zero);
    return _mm512_packus_epi16(low, high);
  }
  // narrow()'s bytes, the vectors one after the other.
  static B in_order(B mixed) {
    return _mm512_permutexvar_epi32(_mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0), mixed);
  }

  // The bytes of a group, OV * kLanes a pixel: where all pixels are neighbours; where they are at `at`; `outputs` of `count` of them.
  static void store_all(uint8_t* y, B bytes) { _mm512_storeu_si512(y, bytes); }
  template <int OV>
  static void store_each(uint8_t* y, const int64_t* at, B bytes) {
    if constexpr (OV == 2) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(y + at[0]), _mm512_castsi512_si256(bytes));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(y + at[1]), _mm512_extracti64x4_epi64(bytes, 1));
    }
    if constexpr (OV == 1) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(y + at[0]), _mm512_castsi512_si128(bytes));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(y + at[1]), _mm512_extracti32x4_epi32(bytes, 1));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(y + at[2]), _mm512_extracti32x4_epi32(bytes, 2));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(y + at[3]), _mm512_extracti32x4_epi32(bytes, 3));
    }
  }
  template <int OV>
  static void store_some(uint8_t* y, const int64_t* at, int64_t count, int64_t outputs, B bytes) {
    for (int64_t p = 0; p < kSums / OV && p < count; ++p) {
      _mm512_mask_storeu_epi8(y + at[p], first(outputs), bytes);
      if (OV == 2) bytes = _mm512_shuffle_i64x2(bytes, bytes, 0x0e);
      if (OV == 1) bytes = _mm512_alignr_epi32(bytes, bytes, 4);
    }
  }
  template <int OV>
  static void load_bytes(const uint8_t* p, I* v, int64_t count) {
    if (count >= OV * kLanes) {
      TRITKIT_UNROLL
      for (int i = 0; i < OV; ++i) v[i] = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + i * kLanes)));
      return;
    }
    TRITKIT_UNROLL
    for (int i = 0; i < OV; ++i) {
      const __mmask16 some = static_cast<__mmask16>(first(count) >> i * kLanes);
      v[i] = _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(some, p + i * kLanes));
    }
  }

 private:
  static __mmask64 first(int64_t count) { return count >= 64 ? ~0ull : (1ull << count) - 1; }
};

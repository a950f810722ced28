// Products of signs: C - 2 popcount(x xor w). No header but the compiler's own, and C linkage, so that one call of the
// compiler builds it and ctypes loads it.
//
// Bits are 64 to a word, the first column in the lowest; padding is zero on both sides and so never differs. Weights
// stand eight rows at a time, (R / 8, words, 8): a word of the input meets one word of each of the eight, and eight
// counts grow side by side without a sum across a register.

#include <cstdint>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

constexpr int64_t kRows = 8;

using Counts = void (*)(const uint64_t*, const uint64_t*, int64_t, int64_t*);

void scalar(const uint64_t* input, const uint64_t* weight, int64_t words, int64_t* counts) {
  for (int64_t row = 0; row < kRows; ++row) counts[row] = 0;
  for (int64_t word = 0; word < words; ++word)
    for (int64_t row = 0; row < kRows; ++row)
      counts[row] += __builtin_popcountll(input[word] ^ weight[word * kRows + row]);
}

#if defined(__x86_64__)

__attribute__((target("popcnt"))) void popcnt(const uint64_t* input, const uint64_t* weight, int64_t words,
                                              int64_t* counts) {
  int64_t found[kRows] = {0};
  for (int64_t word = 0; word < words; ++word)
    for (int64_t row = 0; row < kRows; ++row)
      found[row] += __builtin_popcountll(input[word] ^ weight[word * kRows + row]);
  for (int64_t row = 0; row < kRows; ++row) counts[row] = found[row];
}

// Four counts of 64 bits: a table of the bits in four, looked up for both halves of each byte (Mula).
__attribute__((target("avx2"))) inline __m256i bits_of(__m256i value) {
  const __m256i table = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1, 2, 1, 2, 2, 3, 1, 2,
                                         2, 3, 2, 3, 3, 4);
  const __m256i low = _mm256_set1_epi8(15);
  const __m256i lower = _mm256_shuffle_epi8(table, _mm256_and_si256(value, low));
  const __m256i upper = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(value, 4), low));
  return _mm256_sad_epu8(_mm256_add_epi8(lower, upper), _mm256_setzero_si256());
}

__attribute__((target("avx2"))) void avx2(const uint64_t* input, const uint64_t* weight, int64_t words,
                                          int64_t* counts) {
  __m256i first = _mm256_setzero_si256(), second = first;
  for (int64_t word = 0; word < words; ++word) {
    const __m256i given = _mm256_set1_epi64x(static_cast<long long>(input[word]));
    const __m256i* rows = reinterpret_cast<const __m256i*>(weight + word * kRows);
    first = _mm256_add_epi64(first, bits_of(_mm256_xor_si256(given, _mm256_loadu_si256(rows))));
    second = _mm256_add_epi64(second, bits_of(_mm256_xor_si256(given, _mm256_loadu_si256(rows + 1))));
  }
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(counts), first);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(counts + 4), second);
}

__attribute__((target("avx512f,avx512vpopcntdq"))) void avx512(const uint64_t* input, const uint64_t* weight,
                                                               int64_t words, int64_t* counts) {
  __m512i found = _mm512_setzero_si512();
  for (int64_t word = 0; word < words; ++word) {
    const __m512i given = _mm512_set1_epi64(static_cast<long long>(input[word]));
    const __m512i differ = _mm512_xor_si512(given, _mm512_loadu_si512(weight + word * kRows));
    found = _mm512_add_epi64(found, _mm512_popcnt_epi64(differ));
  }
  _mm512_storeu_si512(counts, found);
}

int best() {
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vpopcntdq")) return 3;
  if (__builtin_cpu_supports("avx2")) return 2;
  return __builtin_cpu_supports("popcnt") ? 1 : 0;
}

Counts counted_by(int level) {
  return level >= 3 ? avx512 : level == 2 ? avx2 : level == 1 ? popcnt : scalar;
}

#else

int best() { return 0; }
Counts counted_by(int) { return scalar; }

#endif

// What is not a number is below every shift, as in x >= shift.
inline uint64_t word_of(const float* input, const float* shift, int64_t step, int64_t count) {
  uint64_t word = 0;
  for (int64_t bit = 0; bit < count; ++bit) word |= static_cast<uint64_t>(input[bit] >= shift[bit * step]) << bit;
  return word;
}

#if defined(__x86_64__)

__attribute__((target("avx2"))) uint64_t word_by_avx2(const float* input, const float* shift, int64_t step) {
  uint64_t word = 0;
  for (int64_t part = 0; part < 8; ++part) {
    const __m256 least = step ? _mm256_loadu_ps(shift + 8 * part) : _mm256_set1_ps(*shift);
    const __m256 high = _mm256_cmp_ps(_mm256_loadu_ps(input + 8 * part), least, _CMP_GE_OQ);
    word |= static_cast<uint64_t>(_mm256_movemask_ps(high)) << (8 * part);
  }
  return word;
}

__attribute__((target("avx512f"))) uint64_t word_by_avx512(const float* input, const float* shift, int64_t step) {
  uint64_t word = 0;
  for (int64_t part = 0; part < 4; ++part) {
    const __m512 least = step ? _mm512_loadu_ps(shift + 16 * part) : _mm512_set1_ps(*shift);
    const __mmask16 high = _mm512_cmp_ps_mask(_mm512_loadu_ps(input + 16 * part), least, _CMP_GE_OQ);
    word |= static_cast<uint64_t>(high) << (16 * part);
  }
  return word;
}

#endif

uint64_t whole_word_of(const float* input, const float* shift, int64_t step, int level) {
#if defined(__x86_64__)
  if (level >= 3) return word_by_avx512(input, shift, step);
  if (level == 2) return word_by_avx2(input, shift, step);
#endif
  (void)level;
  return word_of(input, shift, step, 64);
}

int possible(int level) {
  const int most = best();
  return level < most ? level : most;
}

}  // namespace

extern "C" {

// The level of instructions that this processor has: 0 scalar, 1 POPCNT, 2 AVX2, 3 AVX-512 VPOPCNTDQ.
int corank_level() { return best(); }

// Signs of n rows of c numbers, less a shift of each column (shifts == c) or one for all (shifts == 1), as words
// (n, ceil(c / 64)).
void corank_pack(const float* input, const float* shift, int64_t shifts, int64_t n, int64_t c, int level,
                 uint64_t* packed) {
  const int64_t words = (c + 63) / 64, step = shifts > 1;
  level = possible(level);
  for (int64_t row = 0; row < n; ++row)
    for (int64_t word = 0; word < words; ++word) {
      const float* from = input + row * c + 64 * word;
      const float* least = shift + 64 * word * step;
      const int64_t left = c - 64 * word;
      packed[row * words + word] =
          left >= 64 ? whole_word_of(from, least, step, level) : word_of(from, least, step, left);
    }
}

// Products of signs of n packed inputs with r packed rows of c columns: whole numbers into counts, or, where that is
// null, times factor plus bias (r each, bias may be null) into output. All are (n, r).
void corank_product(const uint64_t* input, const uint64_t* weight, int64_t n, int64_t c, int64_t r, int level,
                    int32_t* counts, const float* factor, const float* bias, float* output) {
  const int64_t words = (c + 63) / 64;
  const Counts count = counted_by(possible(level));
  int64_t differ[kRows];
  for (int64_t first = 0; first < r; first += kRows) {
    const int64_t rows = r - first < kRows ? r - first : kRows;
    for (int64_t one = 0; one < n; ++one) {
      count(input + one * words, weight + first * words, words, differ);
      for (int64_t row = 0; row < rows; ++row) {
        const int64_t place = one * r + first + row;
        const int32_t product = static_cast<int32_t>(c - 2 * differ[row]);
        if (counts != nullptr) {
          counts[place] = product;
        } else {
          const float scaled = static_cast<float>(product) * factor[first + row];
          output[place] = bias == nullptr ? scaled : scaled + bias[first + row];
        }
      }
    }
  }
}

}  // extern "C"

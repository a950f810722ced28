// Products with a weight of packed codes, y = x W^T, and its rows as floats. No header but the compiler's own, and C
// linkage, so that one call of the compiler builds it and ctypes loads it: for codes of CORANK_BITS bits, and for the
// instructions that the flags name, AVX-512 (F, BW, DQ, VL), AVX2 with FMA, or none.
//
// Layout of a row: sixteen lanes take its columns in turn, each a string of bits with its codes in order, the first in
// the lowest. Strings are cut into words of 32 bits; the words of all lanes stand side by side, so one load of 64 bytes
// brings sixteen columns' codes, and a shift the next sixteen's. A tile is the fewest words that hold whole codes. The
// last columns fill a tile in part; of that the bytes in use are kept, byte after byte for all lanes.
//
// A value is scale * (level[code] - offset), a scale and an offset for each group of columns. Few levels stand in a
// register, times scale less offset, and a shuffle by the codes reads them. Equal steps at more bits become floats as
// they stand in their word, without a shift: inputs are divided by the power of two. All else is written as floats, a
// row at a time, and then multiplied.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#ifndef CORANK_BITS
#define CORANK_BITS 4
#endif

extern "C" {

// A weight, as codebook.py fills it in.
struct Codes {
  const uint8_t* codes;     // rows * row_bytes, and 64 bytes more
  const float* levels;      // 1 << bits; null where each row has its own
  const float* own;         // rows * (1 << bits), each row's levels; or null
  const uint16_t* scale;    // rows * groups of float16; null for ones
  const uint16_t* offset;   // the same; null for zeros
  int64_t rows, columns, row_bytes;
  int64_t groups, group_size;  // a group's columns, a multiple of 32 unless there is one
  int32_t bits, uniform;    // whether levels are first + step * code, exactly
  float first, step;
};

}  // extern "C"

namespace {

constexpr int kLanes = 16;
constexpr int kMostWords = 7;

constexpr int words_of(int bits) { return bits == 6 ? 3 : bits % 2 && bits > 1 ? bits : 1; }
constexpr int codes_of(int bits) { return 32 * words_of(bits) / bits; }

// The power of two that equal steps are read at: where a code stands in its word; 0 for those that are brought down,
// at the top, where a sign would be, and across two words.
constexpr int place_of(int bits, int code) { return code * bits % 32 + bits >= 32 ? 0 : code * bits % 32; }

inline float from_half(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16, rest = half & 0x7fff;
  if (rest < 0x400) {
    const float value = static_cast<float>(rest) * 5.9604644775390625e-8f;  // 2^-24
    return sign ? -value : value;
  }
  const uint32_t bits = sign | (rest >= 0x7c00 ? 0x7f800000 | (rest & 0x3ff) << 13 : (rest << 13) + 0x38000000);
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

inline int64_t tiles_of(const Codes& w) {
  const int64_t wide = kLanes * codes_of(w.bits);
  return (w.columns + wide - 1) / wide;
}

// The row's last tile, where it is not whole, as it would be: the rest zeros.
inline const uint8_t* last_tile(const Codes& w, const uint8_t* row, uint8_t* room) {
  const int64_t whole = w.columns / (kLanes * codes_of(w.bits)), bytes = 64 * words_of(w.bits);
  const int64_t planes = (w.row_bytes - whole * bytes) / kLanes;
  if (!planes) return row + (whole - 1) * bytes;
  std::memset(room, 0, static_cast<size_t>(bytes));
  for (int64_t plane = 0; plane < planes; ++plane)
    for (int lane = 0; lane < kLanes; ++lane)
      room[64 * (plane / 4) + 4 * lane + plane % 4] = row[whole * bytes + plane * kLanes + lane];
  return room;
}

// A row's scales and offsets as what sums over a group are multiplied by, and those of the inputs; and its levels.
struct RowFactors {
  std::vector<float> a, b;
  const float* levels = nullptr;

  void read(const Codes& w, int64_t row, bool linear) {
    a.resize(static_cast<size_t>(w.groups));
    b.resize(static_cast<size_t>(w.groups));
    for (int64_t g = 0; g < w.groups; ++g) {
      const float scale = w.scale ? from_half(w.scale[row * w.groups + g]) : 1.0f;
      const float offset = w.offset ? from_half(w.offset[row * w.groups + g]) : 0.0f;
      a[g] = linear ? scale * w.step : scale;
      b[g] = scale * (linear ? w.first - offset : -offset);
    }
    levels = w.own ? w.own + (row << w.bits) : w.levels;
  }
};

// Groups begin at multiples of 32 columns, so that they are looked for only there.
inline int64_t pairs_of(const Codes& w) { return w.groups == 1 ? INT64_MAX : w.group_size / (2 * kLanes); }

struct Product {
  const Codes* weight;
  const float* x;     // n * stride: columns, zeros up to whole tiles; for equal steps divided by 2^place
  const float* sums;  // n * groups * lanes: of the columns of each group
  int64_t stride, tiles, pairs;  // a group's columns in pairs of sixteen
  const float* bias;  // rows; or null
  float* y;           // n * rows
};

template <int B>
void by_rows(const Product& job, int64_t n, int64_t begin, int64_t end);

inline uint32_t code_at(const uint8_t* tile, int bits, int lane, int code) {
  const int at = code * bits, word = at / 32, shift = at % 32;
  uint32_t low, high = 0;
  std::memcpy(&low, tile + 64 * word + 4 * lane, 4);
  if (shift + bits > 32) std::memcpy(&high, tile + 64 * (word + 1) + 4 * lane, 4);
  return static_cast<uint32_t>((low | static_cast<uint64_t>(high) << 32) >> shift) & ((1u << bits) - 1);
}

enum Kind { kTable, kLinear, kRows };  // how codes become values: the last, row by row

#if defined(__AVX512F__) || defined(__AVX2__)

#if defined(__AVX512F__)

constexpr int kWide = 16, kTableBits = 4, kInputs = 8;
using Floats = __m512;
using Whole = __m512i;

inline Floats zeros() { return _mm512_setzero_ps(); }
inline Floats load(const float* from) { return _mm512_loadu_ps(from); }
inline void store(float* to, Floats value) { _mm512_storeu_ps(to, value); }
inline Floats all(float value) { return _mm512_set1_ps(value); }
inline Floats plus(Floats a, Floats b) { return _mm512_add_ps(a, b); }
inline Floats fused(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
inline Floats composed(Floats level, Floats offset, Floats scale) {
  return _mm512_mul_ps(_mm512_sub_ps(level, offset), scale);
}
inline float sum_of(Floats value) { return _mm512_reduce_add_ps(value); }
inline Whole load_codes(const uint8_t* from) { return _mm512_loadu_si512(from); }
inline Whole down(Whole value, int by) { return _mm512_srli_epi32(value, static_cast<unsigned>(by)); }
inline Whole up(Whole value, int by) { return _mm512_slli_epi32(value, static_cast<unsigned>(by)); }
inline Whole either(Whole a, Whole b) { return _mm512_or_si512(a, b); }
inline Whole only(Whole value, uint32_t mask) {
  return _mm512_and_si512(value, _mm512_set1_epi32(static_cast<int>(mask)));
}
inline Floats floats(Whole value) { return _mm512_cvtepi32_ps(value); }
inline Floats gathered(Whole index, const float* levels) { return _mm512_i32gather_ps(index, levels, 4); }

// A shuffle reads four bits of its index: of 1 and 2 bits the next codes too, each by a table of its own.
constexpr int tables_of(int bits) { return bits < 3 ? 4 / bits : 1; }
constexpr bool kSharedIndex = true;

template <int B>
inline Floats looked_up(Whole index, int code, const Floats* table) {
  return _mm512_permutexvar_ps(index, table[code % tables_of(B)]);
}

#else

constexpr int kWide = 8, kTableBits = 3, kInputs = 4;
using Floats = __m256;
using Whole = __m256i;

inline Floats zeros() { return _mm256_setzero_ps(); }
inline Floats load(const float* from) { return _mm256_loadu_ps(from); }
inline void store(float* to, Floats value) { _mm256_storeu_ps(to, value); }
inline Floats all(float value) { return _mm256_set1_ps(value); }
inline Floats plus(Floats a, Floats b) { return _mm256_add_ps(a, b); }
inline Floats fused(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
inline Floats composed(Floats level, Floats offset, Floats scale) {
  return _mm256_mul_ps(_mm256_sub_ps(level, offset), scale);
}
inline float sum_of(Floats value) {
  float parts[8];
  store(parts, value);
  return ((parts[0] + parts[4]) + (parts[1] + parts[5])) + ((parts[2] + parts[6]) + (parts[3] + parts[7]));
}
inline Whole load_codes(const uint8_t* from) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)); }
inline Whole down(Whole value, int by) { return _mm256_srli_epi32(value, by); }
inline Whole up(Whole value, int by) { return _mm256_slli_epi32(value, by); }
inline Whole either(Whole a, Whole b) { return _mm256_or_si256(a, b); }
inline Whole only(Whole value, uint32_t mask) {
  return _mm256_and_si256(value, _mm256_set1_epi32(static_cast<int>(mask)));
}
inline Floats floats(Whole value) { return _mm256_cvtepi32_ps(value); }
inline Floats gathered(Whole index, const float* levels) { return _mm256_i32gather_ps(levels, index, 4); }

constexpr int tables_of(int bits) { return bits == 4 ? 2 : 1; }  // a shuffle reads three bits
constexpr bool kSharedIndex = false;

template <int B>
inline Floats looked_up(Whole index, int, const Floats* table) {
  const Floats low = _mm256_permutevar8x32_ps(table[0], index);
  if constexpr (B < 4) return low;
  // The fourth bit, as a sign, chooses.
  return _mm256_blendv_ps(low, _mm256_permutevar8x32_ps(table[B < 4 ? 0 : 1], index), _mm256_castsi256_ps(up(index, 28)));
}

#endif

constexpr int kParts = kLanes / kWide;  // registers of sixteen columns

// Codes of some lanes: for a table in the lowest bits with others above, for rows alone, for equal steps where they stand.
template <int B, Kind K>
inline Whole index_of(const uint8_t* tile, int code) {
  const int at = code * B, word = at / 32, shift = at % 32;
  const Whole low = load_codes(tile + 64 * word);
  if (K == kTable && kSharedIndex && 4 % B == 0) return shift / 4 ? down(low, shift / 4 * 4) : low;
  if (K == kLinear && shift + B < 32) return only(low, ((1u << B) - 1) << shift);
  Whole found = shift ? down(low, shift) : low;
  if (shift + B > 32) found = either(found, up(load_codes(tile + 64 * (word + 1)), 32 - shift));
  return K == kTable || shift + B == 32 ? found : only(found, (1u << B) - 1);
}

template <int B, Kind K>
inline Floats value_of(const uint8_t* tile, int code, const Floats* table) {
  const Whole index = index_of<B, K>(tile, code);
  if constexpr (K == kLinear) return floats(index);
  return looked_up<B>(index, code, table);
}

// The registers that a row's levels are read from.
template <int B>
inline void read_tables(const float* levels, Floats* table) {
  float spread[kWide];
  for (int one = 0; one < tables_of(B); ++one) {
    for (int at = 0; at < kWide; ++at) {
      const int code = (1 << B) > kWide ? kWide * one + at : (kSharedIndex ? at >> (B * one) : at) & ((1 << B) - 1);
      spread[at] = levels[code];
    }
    table[one] = load(spread);
  }
}

// R rows from a row on, by N inputs; those beyond the last are the last again.
template <int B, Kind K, int R, int N>
__attribute__((noinline)) void block(const Product& job, int64_t row, int64_t first, int64_t n, RowFactors* factors) {
  constexpr int codes = codes_of(B), chains = N == 1 ? 2 : 1, tables = K == kTable ? tables_of(B) : 1;
  const Codes& w = *job.weight;
  uint8_t room[R][64 * kMostWords + 4];
  const uint8_t *base[R], *last[R];
  const float* x[N];
  Floats plain[R][tables], table[R][tables], part[R][N][chains], whole[R][N];
  for (int one = 0; one < N; ++one) x[one] = job.x + std::min(first + one, n - 1) * job.stride;
  for (int r = 0; r < R; ++r) {
    const int64_t own = std::min(row + r, w.rows - 1);
    base[r] = w.codes + own * w.row_bytes;
    last[r] = last_tile(w, base[r], room[r]);
    factors[r].read(w, own, K == kLinear);
    if constexpr (K == kTable) read_tables<B>(factors[r].levels, plain[r]);
    for (int one = 0; one < N; ++one) {
      whole[r][one] = zeros();
      for (int c = 0; c < chains; ++c) part[r][one][c] = zeros();
    }
  }
  int64_t left = 0, group = -1;
  for (int64_t tile = 0; tile < job.tiles; ++tile) {
    const uint8_t* from[R];
    for (int r = 0; r < R; ++r) {
      const uint8_t* here = base[r] + tile * 64 * words_of(B);
      from[r] = tile + 1 < job.tiles ? here : last[r];
      // The next rows' codes: rows are too short for the processor to see where it goes on.
      for (int word = 0; word < words_of(B); ++word) __builtin_prefetch(here + R * w.row_bytes + 64 * word);
    }
#pragma GCC unroll 32
    for (int code = 0; code < codes; ++code) {
      if (code % 2 == 0 && left-- == 0) {  // the next group
        if (K == kLinear && group >= 0)
          for (int r = 0; r < R; ++r)
            for (int one = 0; one < N; ++one) {
              const Floats sum = chains == 1 ? part[r][one][0] : plus(part[r][one][0], part[r][one][chains - 1]);
              whole[r][one] = fused(sum, all(factors[r].a[group]), whole[r][one]);
              for (int c = 0; c < chains; ++c) part[r][one][c] = zeros();
            }
        group = std::min(group + 1, w.groups - 1);
        left = job.pairs - 1;
        if (K == kTable)
          for (int r = 0; r < R; ++r)
            for (int t = 0; t < tables; ++t)
              table[r][t] = fused(plain[r][t], all(factors[r].a[group]), all(factors[r].b[group]));
      }
      for (int half = 0; half < kParts; ++half) {
        const int64_t at = (tile * codes + code) * kLanes + half * kWide;
        const int chain = (code * kParts + half) % chains;
        for (int r = 0; r < R; ++r) {
          const Floats value = value_of<B, K>(from[r] + 4 * kWide * half, code, table[r]);
          for (int one = 0; one < N; ++one)
            part[r][one][chain] = fused(value, load(x[one] + at), part[r][one][chain]);
        }
      }
    }
  }
  for (int r = 0; r < R; ++r)
    for (int one = 0; one < N; ++one) {
      const int64_t input = std::min(first + one, n - 1), own = std::min(row + r, w.rows - 1);
      Floats sum = chains == 1 ? part[r][one][0] : plus(part[r][one][0], part[r][one][chains - 1]);
      if (K == kLinear) {
        sum = fused(sum, all(factors[r].a[group]), whole[r][one]);
        const float* sums = job.sums + input * w.groups * kLanes;
        for (int64_t g = 0; g < w.groups; ++g)
          for (int half = 0; half < kParts; ++half)
            sum = fused(load(sums + g * kLanes + half * kWide), all(factors[r].b[g]), sum);
      }
      job.y[input * w.rows + own] = sum_of(sum) + (job.bias ? job.bias[own] : 0.0f);
    }
}

// A row as it is composed, up to whole tiles.
template <int B>
__attribute__((noinline)) void decode(const Codes& w, int64_t row, RowFactors& factors, float* out) {
  constexpr int codes = codes_of(B);
  constexpr bool small = B <= kTableBits || (B == 4);
  uint8_t room[64 * kMostWords + 4];
  const uint8_t* base = w.codes + row * w.row_bytes;
  const int64_t tiles = tiles_of(w);
  Floats table[small ? tables_of(B) : 1];
  factors.read(w, row, false);
  if constexpr (small) read_tables<B>(factors.levels, table);
  int64_t group = -1, left = 0;
  Floats scale = all(1.0f), offset = zeros();
  for (int64_t tile = 0; tile < tiles; ++tile) {
    const uint8_t* from = tile + 1 < tiles ? base + tile * 64 * words_of(B) : last_tile(w, base, room);
#pragma GCC unroll 32
    for (int code = 0; code < codes; ++code) {
      if (code % 2 == 0 && left-- == 0) {
        group = std::min(group + 1, w.groups - 1);
        left = pairs_of(w) - 1;
        scale = all(factors.a[group]);
        if (w.offset) offset = all(from_half(w.offset[row * w.groups + group]));
      }
      for (int half = 0; half < kParts; ++half) {
        Floats level;
        if constexpr (small)
          level = value_of<B, kTable>(from + 4 * kWide * half, code, table);
        else
          level = gathered(index_of<B, kRows>(from + 4 * kWide * half, code), factors.levels);
        store(out + (tile * codes + code) * kLanes + half * kWide, composed(level, offset, scale));
      }
    }
  }
}

template <int B>
Kind kind_of(const Codes& w) {
  return B <= kTableBits ? kTable : w.uniform ? kLinear : B == 4 ? kTable : kRows;
}

template <int B, Kind K>
void blocks(const Product& job, int64_t n, int64_t begin, int64_t end) {
  RowFactors factors[4];
  if (n == 1) {
    for (int64_t row = begin; row < end; row += 4) block<B, K, 4, 1>(job, row, 0, n, factors);
    return;
  }
  for (int64_t row = begin; row < end; row += 3)
    for (int64_t first = 0; first < n; first += n - first > 4 ? kInputs : 4)
      n - first > 4 ? block<B, K, 3, kInputs>(job, row, first, n, factors)
                    : block<B, K, 3, 4>(job, row, first, n, factors);
}

template <int B>
void product(const Product& job, int64_t n, int64_t begin, int64_t end) {
  const Kind kind = kind_of<B>(*job.weight);
  if constexpr (B <= 4)
    if (kind == kTable) return blocks<B, kTable>(job, n, begin, end);
  if constexpr (B > kTableBits)
    if (kind == kLinear) return blocks<B, kLinear>(job, n, begin, end);
  by_rows<B>(job, n, begin, end);
}

// The product of a row of floats and one input.
inline float dot(const float* row, const float* x, int64_t columns) {
  Floats first = zeros(), second = first;
  for (int64_t at = 0; at < columns; at += 2 * kWide) {
    first = fused(load(row + at), load(x + at), first);
    second = fused(load(row + at + kWide), load(x + at + kWide), second);
  }
  return sum_of(plus(first, second));
}

#else

template <int B>
Kind kind_of(const Codes&) {
  return kRows;
}

template <int B>
void decode(const Codes& w, int64_t row, RowFactors& factors, float* out) {
  constexpr int codes = codes_of(B);
  uint8_t room[64 * kMostWords + 4];
  const uint8_t* base = w.codes + row * w.row_bytes;
  const int64_t tiles = tiles_of(w);
  factors.read(w, row, false);
  int64_t group = -1, left = 0;
  float scale = 1.0f, offset = 0.0f;
  for (int64_t tile = 0; tile < tiles; ++tile) {
    const uint8_t* from = tile + 1 < tiles ? base + tile * 64 * words_of(B) : last_tile(w, base, room);
    for (int code = 0; code < codes; ++code) {
      if (code % 2 == 0 && left-- == 0) {
        group = std::min(group + 1, w.groups - 1);
        left = pairs_of(w) - 1;
        scale = factors.a[group];
        if (w.offset) offset = from_half(w.offset[row * w.groups + group]);
      }
      for (int lane = 0; lane < kLanes; ++lane)
        out[(tile * codes + code) * kLanes + lane] =
            scale * (factors.levels[code_at(from, B, lane, code)] - offset);
    }
  }
}

template <int B>
void product(const Product& job, int64_t n, int64_t begin, int64_t end) {
  by_rows<B>(job, n, begin, end);
}

inline float dot(const float* row, const float* x, int64_t columns) {
  float parts[2 * kLanes] = {0}, sum = 0.0f;  // side by side, as the compiler then has them in registers
  for (int64_t at = 0; at < columns; at += 2 * kLanes)
    for (int lane = 0; lane < 2 * kLanes; ++lane) parts[lane] += row[at + lane] * x[at + lane];
  for (float part : parts) sum += part;
  return sum;
}

#endif

template <int B>
void by_rows(const Product& job, int64_t n, int64_t begin, int64_t end) {
  const Codes& w = *job.weight;
  std::vector<float> row(static_cast<size_t>(job.stride));
  RowFactors factors;
  for (int64_t one = begin; one < end; ++one) {
    decode<B>(w, one, factors, row.data());
    for (int64_t of = 0; of < n; ++of) {
      const float sum = dot(row.data(), job.x + of * job.stride, job.stride);
      job.y[of * w.rows + one] = sum + (job.bias ? job.bias[one] : 0.0f);
    }
  }
}

// The inputs as a product reads them, and their sums.
template <int B>
void prepare(const Codes& w, const float* x, int64_t n, int64_t stride, float* out, float* sums) {
  constexpr int codes = codes_of(B);
  for (int64_t one = 0; one < n; ++one) {
    float* to = out + one * stride;
    std::memcpy(to, x + one * w.columns, static_cast<size_t>(w.columns) * sizeof(float));
    std::memset(to + w.columns, 0, static_cast<size_t>(stride - w.columns) * sizeof(float));
    if (kind_of<B>(w) != kLinear) continue;
    float* of = sums + one * w.groups * kLanes;
    std::memset(of, 0, static_cast<size_t>(w.groups) * kLanes * sizeof(float));
    for (int64_t at = 0; at < stride / kLanes; ++at) {
      const int64_t group = std::min(at / 2 / pairs_of(w), w.groups - 1);
      const float part = 1.0f / static_cast<float>(1u << place_of(B, static_cast<int>(at % codes)));
      for (int lane = 0; lane < kLanes; ++lane) {
        of[group * kLanes + lane] += to[at * kLanes + lane];
        to[at * kLanes + lane] *= part;
      }
    }
  }
}

}  // namespace

extern "C" {

// y (n, rows) = x (n, columns) times the transpose of a weight, plus a bias (rows) or null.
void corank_product(const Codes* weight, const float* x, int64_t n, const float* bias, float* y, int threads) {
  constexpr int B = CORANK_BITS;
  const Codes& w = *weight;
  const int64_t tiles = tiles_of(w), stride = tiles * codes_of(B) * kLanes;
  std::vector<float> ready(static_cast<size_t>(n * (stride + w.groups * kLanes)));
  prepare<B>(w, x, n, stride, ready.data(), ready.data() + n * stride);
  const Product job{&w, ready.data(), ready.data() + n * stride, stride, tiles, pairs_of(w), bias, y};
  constexpr int64_t kRowsAtOnce = 24;
  const int64_t parts = (w.rows + kRowsAtOnce - 1) / kRowsAtOnce;
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
  for (int64_t part = 0; part < parts; ++part)
    product<B>(job, n, part * kRowsAtOnce, std::min(w.rows, (part + 1) * kRowsAtOnce));
}

// Rows (count, columns) as they are composed; each number of a row is within the weight.
void corank_rows(const Codes* weight, const int64_t* rows, int64_t count, float* out, int threads) {
  const Codes& w = *weight;
  const int64_t stride = tiles_of(w) * codes_of(CORANK_BITS) * kLanes;
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
  for (int64_t one = 0; one < count; ++one) {
    RowFactors factors;
    float* to = out + one * w.columns;
    if (stride == w.columns) {
      decode<CORANK_BITS>(w, rows[one], factors, to);
    } else {
      std::vector<float> whole(static_cast<size_t>(stride));
      decode<CORANK_BITS>(w, rows[one], factors, whole.data());
      std::memcpy(to, whole.data(), static_cast<size_t>(w.columns) * sizeof(float));
    }
  }
}

}  // extern "C"

// Codes one by one, each as a few yes-or-no decisions whose chances adapt. adaptive_walk.py and carried_walk.py have the same in Python, number by
// number: all that is computed here is whole numbers.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <vector>

namespace {

constexpr int MOST_COUNTED = 1023;
constexpr int MOST_ASKED = 1 << 20;
constexpr int FARTHEST = 3071;  // odds of e^12, in 1/256
constexpr int64_t SLOWEST = 60, FASTER = 300, USUAL = 256;  // of learning: how fast, after how many decisions
constexpr int CLASSES = 14;
constexpr int PLACES = 32;  // told apart
constexpr int MOST_CONTEXTS = 8;
constexpr int KNOT = 8, KNOTS = 25, REFINED = 65535 * 16;  // of refined chances: odds from knot to knot, as a shift
constexpr int CARRIED = 64, CARRIED_COUNTED = 255;
constexpr int SIZES = 64;    // of quarter octaves
constexpr int WINDOW = 64;   // rows above that a row is compared with
constexpr int LARGEST = 127; // of what is compared
constexpr int64_t COMPARED = 65536;  // columns of a row, at most
constexpr int SIDES = 17;

struct Tables {
    const int32_t* logarithms;  // of a count, 0 to MOST_COUNTED + 1
    const int32_t* chances;     // of yes, of 65536, by odds from -FARTHEST to FARTHEST
    const int32_t* leads;       // of the machine, (states, 2)
    const int32_t* grids;       // (states,)
};

// A binary arithmetic coder of 32 bits, without carries.
struct Coder {
    uint32_t low = 0, high = 0xFFFFFFFFu, read = 0;
    const uint8_t* data = nullptr;  // null where it writes
    int64_t size = 0, at = 0;
    std::vector<uint8_t> written;

    uint8_t next() {
        const uint8_t found = at < size ? data[at] : 0;
        ++at;
        return found;
    }

    void open(const uint8_t* bytes, int64_t count) {
        data = bytes;
        size = count;
        for (int i = 0; i < 4; ++i) read = read << 8 | next();
    }

    bool step(uint32_t chance, bool answer, bool reads) {
        const uint32_t middle = low + static_cast<uint32_t>((static_cast<uint64_t>(high - low) * chance) >> 16);
        if (reads) answer = read <= middle;
        if (answer) {
            high = middle;
        } else {
            low = middle + 1;
        }
        while (((low ^ high) & 0xFF000000u) == 0) {
            if (reads) {
                read = read << 8 | next();
            } else {
                written.push_back(static_cast<uint8_t>(high >> 24));
            }
            low <<= 8;
            high = high << 8 | 0xFFu;
        }
        return answer;
    }

    // The fewest bytes that, followed by zeros, stand for a number from low to high.
    void close() {
        if (low != 0) {
            for (int bytes = 1; bytes <= 4; ++bytes) {
                const uint32_t unit = bytes == 4 ? 1u : 1u << (32 - 8 * bytes);
                const uint64_t number = (static_cast<uint64_t>(low) + unit - 1) / unit * unit;
                if (number > high) continue;
                for (int i = 0; i < bytes; ++i) written.push_back(static_cast<uint8_t>(number >> (24 - 8 * i)));
                break;
            }
        }
        while (!written.empty() && written.back() == 0) written.pop_back();
    }
};

// One kind of decision: contexts that count, weights that mix what they say.
struct Kind {
    std::vector<int> first;
    std::vector<uint16_t> no, yes;
    std::vector<int64_t> weights;
    std::vector<int32_t> asked;
    int contexts, most;

    Kind(std::vector<int> sizes, int sets, int counted = MOST_COUNTED)
        : contexts(static_cast<int>(sizes.size())), most(counted) {
        int total = 0;
        for (int size : sizes) {
            first.push_back(total);
            total += size;
        }
        no.assign(total, 0);
        yes.assign(total, 0);
        weights.assign(static_cast<size_t>(sets) * contexts, 65536 * 4 / 3 / contexts);
        asked.assign(sets, 0);
    }

    // refined: what these odds have come to so far, or null.
    bool ask(Coder& coder, const Tables& tables, const int* context, int set, bool answer, bool reads,
             int32_t* refined = nullptr) {
        int64_t told[MOST_CONTEXTS];
        int64_t sum = 0;
        int64_t* weight = &weights[static_cast<size_t>(set) * contexts];
        for (int i = 0; i < contexts; ++i) {
            const int place = first[i] + context[i];
            told[i] = tables.logarithms[yes[place]] - tables.logarithms[no[place]];
            sum += weight[i] * told[i];
        }
        const int64_t odds = std::min<int64_t>(std::max<int64_t>(sum >> 16, -FARTHEST), FARTHEST);
        const int64_t chance = tables.chances[odds + FARTHEST];
        if (refined) {
            answer = refine(coder, refined, static_cast<int>(odds), chance, answer, reads);
        } else {
            answer = coder.step(static_cast<uint32_t>(chance), answer, reads);
        }
        const int64_t slope = ((answer ? 65536 : 0) - chance) * (SLOWEST + FASTER * USUAL / (USUAL + asked[set]));
        for (int i = 0; i < contexts; ++i) {
            weight[i] += (slope * told[i]) >> 22;
            const int place = first[i] + context[i];
            uint16_t& counted = answer ? yes[place] : no[place];
            if (++counted > most) {
                yes[place] >>= 1;
                no[place] >>= 1;
            }
        }
        asked[set] = std::min(asked[set] + 1, MOST_ASKED);
        return answer;
    }

    // Asks by the mean of the chance and of what such odds came to before, between two knots.
    static bool refine(Coder& coder, int32_t* refined, int odds, int64_t chance, bool answer, bool reads) {
        const int at = (odds + FARTHEST) >> KNOT, part = (odds + FARTHEST) & ((1 << KNOT) - 1);
        const int64_t shares[2] = {(1 << KNOT) - part, part};
        const int64_t seen = (refined[at] * shares[0] + refined[at + 1] * shares[1]) >> (KNOT + 4);
        const int64_t mean = std::min<int64_t>(std::max<int64_t>((chance + seen) >> 1, 1), 65535);
        answer = coder.step(static_cast<uint32_t>(mean), answer, reads);
        for (int i = 0; i < 2; ++i) {
            const int64_t gap = (answer ? REFINED : 0) - refined[at + i];
            refined[at + i] += static_cast<int32_t>((gap * shares[i]) >> (KNOT + 6));
        }
        return answer;
    }

    // Before another matrix: what was counted weighs less, and weights move faster again.
    void carry() {
        for (auto& count : no) count >>= 2;
        for (auto& count : yes) count >>= 2;
        for (auto& number : asked) number = std::min(number, CARRIED);
    }
};

int length(int64_t number) {
    return number > 0 ? 64 - __builtin_clzll(static_cast<unsigned long long>(number)) : 0;
}

// Which octave a mean is of, drawn to the mean of all.
int class_of(int64_t sum, int64_t count, int64_t usual) {
    return std::min(length((64 * sum + 2 * usual) / (count + 2)), CLASSES - 1);
}

struct Around {
    int known, sizes, left, above, slope;
};

struct Walk {
    int64_t rows, columns;
    int places, half, states;
    Tables tables;
    Coder& coder;
    bool reads;
    std::vector<int> neighbours;  // (places, 6)
    Kind filled, sign, longer, rest;

    Walk(int64_t r, int64_t c, int k, int h, int s, Tables t, Coder& w, bool in)
        : rows(r), columns(c), places(k), half(h), states(s), tables(t), coder(w), reads(in),
          filled({8, 3 * 3 * 16, 3 * CLASSES, CLASSES * CLASSES, 3 * CLASSES * 8, 3 * 64, PLACES * CLASSES}, 8),
          sign({27, 3 * 13, 9, 3 * CLASSES}, 1),
          longer({16 * 16, 16 * CLASSES, 16 * CLASSES, 16 * CLASSES, 16 * 8}, 16),
          rest({512, 1024, 512 * 6}, 16) {
        int width = 1;
        while (width * width < places) ++width;
        if (width * width != places) width = places;
        const int steps[6][2] = {{0, -1}, {-1, 0}, {-1, -1}, {-1, 1}, {0, -2}, {-2, 0}};
        for (int place = 0; place < places; ++place) {
            for (auto& step : steps) {
                const int y = place / width + step[0], x = place % width + step[1];
                neighbours.push_back(x >= 0 && x < width && y >= 0 ? y * width + x : -1);
            }
        }
    }

    // Of one cell, the places so far: values (places,) of this row and channel.
    Around around(const int32_t* cell, int place) const {
        Around found{0, 0, 0, 0, 0};
        for (int i = 0; i < 6; ++i) {
            const int other = neighbours[6 * place + i];
            if (other < 0) continue;
            const int value = cell[other], size = std::min(std::abs(value), 3), side = (value > 0) - (value < 0);
            found.known += i < 2;
            found.sizes += (i < 2 ? 2 : 1) * size;
            found.slope += (i < 2 ? 2 : 1) * side;
            if (i == 0) found.left = side;
            if (i == 1) found.above = side;
        }
        found.sizes = std::min(found.sizes, 15);
        found.slope = std::min(std::max(found.slope, -6), 6) + 6;
        return found;
    }

    // Size of a symbol that is not zero, by its bits. 0 where there is no such symbol.
    int64_t sized(const int* at, const int* low_at, int64_t size) {
        int bits = 0;
        const int most = std::max(0, length(half) - 1);
        for (; bits < most; ++bits) {
            const int context[5] = {16 * bits + at[0], CLASSES * bits + at[1], CLASSES * bits + at[2],
                                    CLASSES * bits + at[3], 8 * bits + at[4]};
            if (!longer.ask(coder, tables, context, bits, size >> (bits + 1) > 0, reads)) break;
        }
        int64_t found = 1;
        for (int done = 0; done < bits; ++done) {
            const int tree = 32 * bits + (done < 5 ? static_cast<int>(found) : 0);
            const int context[3] = {tree, 2 * tree + low_at[0], 6 * tree + low_at[1]};
            found = 2 * found + rest.ask(coder, tables, context, bits, size >> (bits - done - 1) & 1, reads);
        }
        return found <= half ? found : 0;
    }

    // values (rows, columns): distances from the commonest symbol. False where one that is read is beyond half.
    bool go(int32_t* values) {
        std::vector<int64_t> in_column(columns, 0), in_channel(columns / places, 0);
        std::vector<int32_t> last(columns, 0), now(columns, 0);
        std::vector<uint8_t> state(columns, 0);
        int64_t in_all = 0, seen = 0;
        for (int64_t row = 0; row < rows; ++row) {
            int64_t in_row = 0, sides = 0;
            const int64_t usual = 64 * in_all / (seen + 1);
            for (int64_t column = 0; column < columns; ++column) {
                const int64_t channel = column / places;
                const int place = static_cast<int>(column % places), in = states ? state[column] : 0;
                const int grid = states ? tables.grids[in] : 2;
                const Around near = around(&now[channel * places], place);
                const int own = class_of(in_column[column], row, usual);
                const int line = class_of(in_row, column, usual);
                const int group = class_of(in_channel[channel], row * places, usual);
                const int previous = column >= places ? std::min(std::abs(now[column - places]), 3) : 0;
                const int up = std::min(std::abs(now[column]), 3), further = std::min(std::abs(last[column]), 3);
                int32_t& value = values[row * columns + column];
                int64_t symbol = 0;
                if (!reads) symbol = states ? (grid ? (std::abs(value) + 1) / 2 : std::abs(value) / 2) : std::abs(value);
                const int cell[7] = {in,
                                     (grid * 3 + near.known) * 16 + near.sizes,
                                     grid * CLASSES + own,
                                     line * CLASSES + own,
                                     (grid * CLASSES + group) * 8 + near.sizes / 2,
                                     grid * 64 + 16 * up + 4 * further + previous,
                                     std::min(place, PLACES - 1) * CLASSES + line};
                bool negative = false;
                if (filled.ask(coder, tables, cell, in, symbol != 0, reads)) {
                    const int lean = class_of(std::abs(sides), column, 64) + (sides < 0 ? 0 : CLASSES);
                    const int sides_at[4] = {9 * near.known + 3 * (near.left + 1) + near.above + 1,
                                             13 * grid + near.slope,
                                             3 * ((now[column] > 0) - (now[column] < 0) + 1) +
                                                 (last[column] > 0) - (last[column] < 0) + 1,
                                             lean};
                    negative = sign.ask(coder, tables, sides_at, 0, !reads && value < 0, reads);
                    const int sizes_at[5] = {near.sizes, own, line, group, in};
                    const int low_at[2] = {negative, std::min(own / 3, 5)};
                    symbol = sized(sizes_at, low_at, symbol);
                    if (symbol == 0) return false;
                    sides += negative ? -1 : 1;
                }
                if (reads) {
                    const int64_t size = states ? (grid && symbol ? 2 * symbol - 1 : 2 * symbol) : symbol;
                    value = static_cast<int32_t>(negative ? -size : size);
                }
                if (states) state[column] = static_cast<uint8_t>(tables.leads[2 * in + (symbol & 1)]);
                last[column] = now[column];
                now[column] = static_cast<int32_t>(negative ? -symbol : symbol);
                in_column[column] += symbol;
                in_channel[channel] += symbol;
                in_row += symbol;
            }
            in_all += in_row;
            seen += columns;
        }
        return true;
    }
};

// Of numbers that are not below zero; 32 bits divide several times as fast.
int64_t over(int64_t number, int64_t by) {
    if (((number | by) >> 32) == 0) return static_cast<uint32_t>(number) / static_cast<uint32_t>(by);
    return number / by;
}

// Which quarter of an octave a number is of.
int size_of(int64_t number) {
    if (number < 1) return 0;
    const int bits = length(number);
    const int quarter = static_cast<int>(bits >= 3 ? number >> (bits - 3) : number << (3 - bits)) & 3;
    return std::min(std::max(4 * bits + quarter - 8, 0), SIZES - 1);
}

// All that is learned from one matrix and carried to the next.
struct Learned {
    Kind filled, sign, longer, rest;
    std::vector<int32_t> refined;  // of filled, sign, longer, rest, one after the other
    std::vector<uint8_t> written;

    explicit Learned(const int32_t* chances)
        : filled({3 * 3 * 16, 3 * CLASSES * 8, 3 * 64, 3 * SIZES, 3 * SIZES, 3 * SIZES, 8 * SIDES}, 8, CARRIED_COUNTED),
          sign({27, 3 * 13, 9, 243, 2 * SIDES - 1}, 1, CARRIED_COUNTED),
          longer({32 * 16, 32 * CLASSES, 32 * SIZES, 32 * (2 * SIDES - 1)}, 32, CARRIED_COUNTED),
          rest({512, 1024, 512 * 6}, 16, CARRIED_COUNTED) {
        for (int set = 0; set < SIZES + PLACES * 13 + 32 * SIZES + 16; ++set) {
            for (int knot = 0; knot < KNOTS; ++knot) {
                refined.push_back(16 * chances[std::min(knot << KNOT, 2 * FARTHEST)]);
            }
        }
    }

    int32_t* of(int kind, int set) {
        const int begin = kind == 0 ? 0 : kind == 1 ? SIZES : kind == 2 ? SIZES + PLACES * 13 : SIZES + PLACES * 13 + 32 * SIZES;
        return &refined[static_cast<size_t>(begin + set) * KNOTS];
    }
};

// What rows above tell of a row: those that went with it so far are taken to go with it further on.
struct Alike {
    int64_t columns;
    int slots;
    std::vector<int16_t> above;  // (columns, slots)
    std::vector<int32_t> together;
    std::vector<int16_t> shares;
    int64_t energy = 1, count = 1;

    Alike(int64_t rows, int64_t c)
        : columns(c), slots(static_cast<int>(std::min<int64_t>((rows + 6) / 8 * 8, WINDOW))),
          above(static_cast<size_t>(c) * slots, 0), together(slots, 0), shares(slots, 0) {}

    void begin_row() { std::fill(together.begin(), together.end(), 0); }

    // 16 and more times the number to come, in means of its size so far.
    int64_t expected(int64_t column) {
        if (slots == 0) return 0;
        if (column % 8 == 0) {
            const int64_t mean = (energy << 8) / count + 1;
            const int64_t factor = (int64_t{1} << 38) / (mean * (std::min(column, COMPARED) + 60));
            for (int i = 0; i < slots; ++i) {
                const int64_t share = (together[i] * factor) >> 20;
                shares[i] = static_cast<int16_t>(std::min<int64_t>(std::max<int64_t>(share, -32767), 32767));
            }
        }
        const int16_t* other = &above[static_cast<size_t>(column) * slots];
        int32_t sum = 0;
        for (int i = 0; i < slots; ++i) sum += static_cast<int32_t>(shares[i]) * other[i];
        return sum;
    }

    void learn(int64_t row, int64_t column, int64_t symbol) {
        const int16_t value = static_cast<int16_t>(std::min<int64_t>(std::max<int64_t>(symbol, -LARGEST), LARGEST));
        ++count;
        energy += value * value;
        if (slots == 0) return;
        int16_t* other = &above[static_cast<size_t>(column) * slots];
        if (value != 0 && column < COMPARED) {
            for (int i = 0; i < slots; ++i) together[i] += static_cast<int32_t>(value) * other[i];
        }
        other[row % slots] = value;
    }
};

// Of what is expected: 0 where nothing is, to SIDES - 1; the side apart.
int certainty(int64_t sum) {
    const int64_t found = (12 * std::abs(sum)) >> 10;
    if (found < 8) return static_cast<int>(found);
    if (found < 16) return static_cast<int>(8 + (found - 8) / 2);
    return static_cast<int>(std::min<int64_t>(12 + (found - 16) / 8, SIDES - 1));
}

struct CarriedWalk {
    Walk plain;  // neighbours alone
    Learned& learned;
    Coder& coder;
    bool reads;
    std::vector<int64_t> in_column, in_channel;
    std::vector<int32_t> last, now;
    std::vector<uint8_t> state;
    int64_t in_all = 0, seen = 0, in_row = 0, usual = 0;

    CarriedWalk(Learned& l, int64_t r, int64_t c, int k, int h, int s, Tables t, Coder& w, bool in)
        : plain(r, c, k, h, s, t, w, in), learned(l), coder(w), reads(in), in_column(c, 0), in_channel(c / k, 0),
          last(c, 0), now(c, 0), state(c, 0) {
        for (Kind* kind : {&learned.filled, &learned.sign, &learned.longer, &learned.rest}) kind->carry();
    }

    // The size of a symbol by its bits, for one that is not zero. 0 where there is no such symbol.
    int64_t sized(const int* at, int refined, const int* low_at, int64_t size) {
        int bits = 0;
        const int most = std::max(0, length(plain.half) - 1), negative = low_at[0];
        for (; bits < most; ++bits) {
            const int set = 2 * bits + negative;
            const int context[4] = {16 * set + at[0], CLASSES * set + at[1], SIZES * set + at[2],
                                    (2 * SIDES - 1) * set + at[3]};
            if (!learned.longer.ask(coder, plain.tables, context, set, size >> (bits + 1) > 0, reads,
                                    learned.of(2, SIZES * set + refined))) {
                break;
            }
        }
        int64_t found = 1;
        for (int done = 0; done < bits; ++done) {
            const int tree = 32 * bits + (done < 5 ? static_cast<int>(found) : 0);
            const int context[3] = {tree, 2 * tree + low_at[0], 6 * tree + low_at[1]};
            found = 2 * found + learned.rest.ask(coder, plain.tables, context, bits, size >> (bits - done - 1) & 1,
                                                 reads, learned.of(3, bits));
        }
        return found <= plain.half ? found : 0;
    }

    // A signed symbol; false where one that is read is beyond half.
    bool symbol(int64_t row, int64_t column, int grid, int64_t expected, int64_t& signed_symbol) {
        const int k = plain.places, place = static_cast<int>(column % k);
        const int64_t channel = column / k;
        const int32_t* cell = &now[channel * k];
        const Around near = plain.around(cell, place);
        const int64_t own = over(64 * in_column[column] + 2 * usual, row + 2);
        const int64_t line = over(64 * in_row + 2 * usual, column + 2);
        const int64_t group = over(64 * in_channel[channel] + 2 * usual, row * k + 2);
        const int64_t mean = std::max<int64_t>(usual, 1), crossed = over(own * line, mean);
        const int64_t previous = column >= k ? std::abs(now[column - k]) : 0;
        const int64_t up = std::abs(now[column]), further = std::abs(last[column]);
        int64_t sum = 64 * up + 64 * previous + 32 * further, parts = column >= k ? 2 : 1;
        int pattern = 0;
        for (int i = 5; i >= 0; --i) {
            const int other = plain.neighbours[6 * place + i];
            const int value = other < 0 ? 0 : cell[other];
            if (i < 4) pattern = 3 * pattern + (value > 0) - (value < 0) + 1;
            if (other < 0) continue;
            sum += (i < 2 ? 128 : 64) * std::abs(static_cast<int64_t>(value));
            parts += i < 2 ? 2 : 1;
        }
        const int around = size_of(4 * over(2 * sum + 4 * crossed + 2 * group, 2 * parts + 7));
        const int product = size_of(4 * crossed), sure = certainty(expected);
        const int classed = std::min(length(group), CLASSES - 1);
        const int in = plain.states ? state[column] : 0;
        const int cells[7] = {
            (grid * 3 + near.known) * 16 + near.sizes,
            (grid * CLASSES + classed) * 8 + near.sizes / 2,
            grid * 64 + 16 * static_cast<int>(std::min<int64_t>(up, 3)) +
                4 * static_cast<int>(std::min<int64_t>(further, 3)) + static_cast<int>(std::min<int64_t>(previous, 3)),
            grid * SIZES + product,
            grid * SIZES + size_of(4 * over(group * line, mean)),
            grid * SIZES + size_of(own),
            8 * sure + in};
        int64_t size = std::abs(signed_symbol);
        if (!learned.filled.ask(coder, plain.tables, cells, in, size != 0, reads, learned.of(0, around))) {
            signed_symbol = 0;
            return true;
        }
        const int upper = (now[column] > 0) - (now[column] < 0) + 1, side = SIDES - 1 + (expected < 0 ? -sure : sure);
        const int sides[5] = {9 * near.known + 3 * (near.left + 1) + near.above + 1, 13 * grid + near.slope,
                              3 * upper + (last[column] > 0) - (last[column] < 0) + 1, pattern + 81 * upper, side};
        const bool negative = learned.sign.ask(coder, plain.tables, sides, 0, signed_symbol < 0, reads,
                                               learned.of(1, 13 * std::min(place, PLACES - 1) + near.slope));
        const int at[4] = {near.sizes, std::min(length(line), CLASSES - 1), product, side};
        const int low_at[2] = {negative, std::min(std::min(length(own), CLASSES - 1) / 3, 5)};
        size = sized(at, around, low_at, size);
        signed_symbol = negative ? -size : size;
        return size != 0;
    }

    bool go(int32_t* values) {
        Alike alike(plain.rows, plain.columns);
        for (int64_t row = 0; row < plain.rows; ++row) {
            in_row = 0;
            usual = 64 * in_all / (seen + 1);
            alike.begin_row();
            for (int64_t column = 0; column < plain.columns; ++column) {
                const int in = plain.states ? state[column] : 0, grid = plain.states ? plain.tables.grids[in] : 2;
                int32_t& value = values[row * plain.columns + column];
                int64_t found = 0;
                if (!reads) {
                    const int64_t far = std::abs(static_cast<int64_t>(value));
                    found = plain.states ? (grid ? (far + 1) / 2 : far / 2) : far;
                    if (value < 0) found = -found;
                }
                if (!symbol(row, column, grid, alike.expected(column), found)) return false;
                const int64_t size = std::abs(found);
                if (reads) {
                    const int64_t far = plain.states ? (grid && size ? 2 * size - 1 : 2 * size) : size;
                    value = static_cast<int32_t>(found < 0 ? -far : far);
                }
                if (plain.states) state[column] = static_cast<uint8_t>(plain.tables.leads[2 * in + (size & 1)]);
                alike.learn(row, column, found);
                last[column] = now[column];
                now[column] = static_cast<int32_t>(found);
                in_column[column] += size;
                in_channel[column / plain.places] += size;
                in_row += size;
            }
            in_all += in_row;
            seen += plain.columns;
        }
        return true;
    }
};

}  // namespace

extern "C" {

// Writes values (rows, columns). Returns how many bytes that takes; they are in out where capacity holds them.
int64_t corank_adaptive_write(int32_t* values, int64_t rows, int64_t columns, int places, int half, int states,
                              const int32_t* logarithms, const int32_t* chances, const int32_t* leads,
                              const int32_t* grids, uint8_t* out, int64_t capacity) {
    Coder coder;
    Walk walk(rows, columns, places, half, states, {logarithms, chances, leads, grids}, coder, false);
    walk.go(values);
    coder.close();
    const int64_t size = static_cast<int64_t>(coder.written.size());
    if (size <= capacity) std::copy(coder.written.begin(), coder.written.end(), out);
    return size;
}

// Reads them. 0 where the bytes are sound, 1 where a symbol is beyond half, 2 where they do not end as they should.
int corank_adaptive_read(const uint8_t* data, int64_t size, int64_t rows, int64_t columns, int places, int half,
                         int states, const int32_t* logarithms, const int32_t* chances, const int32_t* leads,
                         const int32_t* grids, int32_t* values) {
    Coder coder;
    coder.open(data, size);
    Walk walk(rows, columns, places, half, states, {logarithms, chances, leads, grids}, coder, true);
    if (!walk.go(values)) return 1;
    return coder.at < size || (size > 0 && data[size - 1] == 0) ? 2 : 0;
}

void* corank_carried_new(const int32_t* chances) { return new Learned(chances); }

void* corank_carried_copy(const void* learned) { return new Learned(*static_cast<const Learned*>(learned)); }

void corank_carried_free(void* learned) { delete static_cast<Learned*>(learned); }

// Writes values (rows, columns), and learns. Returns how many bytes that takes, which stay here until they are taken.
int64_t corank_carried_write(void* learned, int32_t* values, int64_t rows, int64_t columns, int places, int half,
                             int states, const int32_t* logarithms, const int32_t* chances, const int32_t* leads,
                             const int32_t* grids) {
    Learned& all = *static_cast<Learned*>(learned);
    Coder coder;
    CarriedWalk(all, rows, columns, places, half, states, {logarithms, chances, leads, grids}, coder, false).go(values);
    coder.close();
    all.written = std::move(coder.written);
    return static_cast<int64_t>(all.written.size());
}

void corank_carried_take(void* learned, uint8_t* out) {
    std::vector<uint8_t>& written = static_cast<Learned*>(learned)->written;
    std::copy(written.begin(), written.end(), out);
    written.clear();
}

// Reads them, and learns. As corank_adaptive_read.
int corank_carried_read(void* learned, const uint8_t* data, int64_t size, int64_t rows, int64_t columns, int places,
                        int half, int states, const int32_t* logarithms, const int32_t* chances, const int32_t* leads,
                        const int32_t* grids, int32_t* values) {
    Coder coder;
    coder.open(data, size);
    CarriedWalk walk(*static_cast<Learned*>(learned), rows, columns, places, half, states,
                     {logarithms, chances, leads, grids}, coder, true);
    if (!walk.go(values)) return 1;
    return coder.at < size || (size > 0 && data[size - 1] == 0) ? 2 : 0;
}
}

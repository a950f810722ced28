// Codes one by one, each as a few yes-or-no decisions whose chances adapt. adaptive.py has the same in Python, number by
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
    int contexts;

    Kind(std::vector<int> sizes, int sets) : contexts(static_cast<int>(sizes.size())) {
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

    bool ask(Coder& coder, const Tables& tables, const int* context, int set, bool answer, bool reads) {
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
        answer = coder.step(static_cast<uint32_t>(chance), answer, reads);
        const int64_t slope = ((answer ? 65536 : 0) - chance) * (SLOWEST + FASTER * USUAL / (USUAL + asked[set]));
        for (int i = 0; i < contexts; ++i) {
            weight[i] += (slope * told[i]) >> 22;
            const int place = first[i] + context[i];
            uint16_t& counted = answer ? yes[place] : no[place];
            if (++counted > MOST_COUNTED) {
                yes[place] >>= 1;
                no[place] >>= 1;
            }
        }
        asked[set] = std::min(asked[set] + 1, MOST_ASKED);
        return answer;
    }

};

int length(int64_t number) {
    int bits = 0;
    for (; number > 0; number >>= 1) ++bits;
    return bits;
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
}

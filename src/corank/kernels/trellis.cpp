// Viterbi over a chain of weights whose codes drive a state machine. trellis.py has the same in numpy, number by number.
//
// Multiples v of a step. Half of the states read even ones, the others odd ones and zero; the parity of a multiple's
// place in its grid (v / 2, or (|v| + 1) / 2) decides where the chain goes. Each of the four sets of multiples of one
// grid and parity has a spacing of four, so of each set the one below a target, the one above, and zero are looked at.

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

namespace {

struct Pick {
    double cost;
    int32_t value;
};

// The least magnitude of each set: grid 0 even and odd places, grid 1 even and odd places.
constexpr int FIRST[2][2] = {{0, 2}, {3, 1}};

void look(Pick& best, int value, double target, double weight, const double* price) {
    const double error = target - value;
    const double cost = weight * (error * error) + price[value];
    if (cost < best.cost) best = {cost, value};
}

Pick pick(int first, bool has_zero, double target, double weight, const double* price, int most) {
    const double size = std::fabs(target);
    const int sign = target < 0 ? -1 : 1;
    const int last = first + (most - first) / 4 * 4;
    Pick best{std::numeric_limits<double>::infinity(), 0};
    int below = first;
    if (size >= last) {
        below = last;
    } else if (size > first) {
        below = first + static_cast<int>((size - first) / 4) * 4;
    }
    look(best, sign * below, target, weight, price);
    if (below + 4 <= last) look(best, sign * (below + 4), target, weight, price);
    if (has_zero && below != 0) look(best, 0, target, weight, price);
    return best;
}

}  // namespace

extern "C" {

// targets, weights (n,), both float64; zero_only (n,) or null: where nothing but zero may be taken.
// price (2, 2 * most + 1): of each multiple in each grid, added to weight * (target - v)^2.
// next (states, 2): where a parity leads; states read grid 0 where grid[state] is 0. values (n,): what is taken;
// visited (n,): the state in which it is read. Returns the cost of all.
double corank_trellis(const double* targets, const double* weights, const uint8_t* zero_only, int64_t count,
                      const double* price, int most, const int32_t* next, const int32_t* grid, int states,
                      int32_t* values, uint8_t* visited) {
    const double never = std::numeric_limits<double>::infinity();
    const double* prices[2] = {price + most, price + 2 * most + 1 + most};
    std::vector<double> cost(states, never), after(states);
    std::vector<uint8_t> from(static_cast<size_t>(count) * states);
    std::vector<int32_t> taken(static_cast<size_t>(count) * states);
    cost[0] = 0;
    for (int64_t at = 0; at < count; ++at) {
        Pick sets[2][2];
        for (int g = 0; g < 2; ++g) {
            for (int parity = 0; parity < 2; ++parity) {
                const bool has_zero = parity == 0;
                if (zero_only != nullptr && zero_only[at]) {
                    sets[g][parity] = {never, 0};
                    if (has_zero) look(sets[g][parity], 0, targets[at], weights[at], prices[g]);
                } else {
                    sets[g][parity] = pick(FIRST[g][parity], has_zero, targets[at], weights[at], prices[g], most);
                }
            }
        }
        for (int state = 0; state < states; ++state) after[state] = never;
        for (int state = 0; state < states; ++state) {
            for (int parity = 0; parity < 2; ++parity) {
                const Pick& one = sets[grid[state]][parity];
                const double total = cost[state] + one.cost;
                const int to = next[2 * state + parity];
                if (total < after[to]) {
                    after[to] = total;
                    from[at * states + to] = static_cast<uint8_t>(state);
                    taken[at * states + to] = one.value;
                }
            }
        }
        cost.swap(after);
    }
    int state = 0;
    for (int other = 1; other < states; ++other) {
        if (cost[other] < cost[state]) state = other;
    }
    const double total = cost[state];
    for (int64_t at = count - 1; at >= 0; --at) {
        values[at] = taken[at * states + state];
        state = visited[at] = from[at * states + state];
    }
    return total;
}
}

#include "tests/comm/behaviours.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iterator>
#include <limits>
#include <stdexcept>
#include <vector>

#include "comm/agree.hpp"
#include "core/error.hpp"
#include "tests/comm/messages.hpp"

namespace muster {
namespace {

void all_to_all_delivers_pieces_of_awkward_sizes(Place& place) {
  for (const std::size_t scale : {1, 63, 4096, 50'003}) {
    Exchange exchange(place, static_cast<int>(scale), scale);
    exchange.start().wait();
    exchange.expect_arrived();
  }
}

void all_to_all_leaves_the_own_piece_alone(Place& place) {
  const int rank = place.comm.rank(), ranks = place.comm.size();
  const auto sent = place.array(std::vector<std::int32_t>(index(ranks), rank + 1)),
             received = place.array(std::vector<std::int32_t>(index(ranks), -1));
  std::vector<std::span<const std::byte>> send;
  std::vector<std::span<std::byte>> receive;
  for (std::size_t r = 0; r < index(ranks); ++r) {
    send.push_back(sent.bytes().subspan(r * 4, 4));
    receive.push_back(received.bytes().subspan(r * 4, 4));
  }
  place.comm.all_to_all(send, receive, "numbers").wait();
  const std::vector<std::int32_t> numbers = received.values();
  for (int r = 0; r < ranks; ++r) expect_equal(numbers[index(r)], r == rank ? -1 : r + 1);
}

// One array of a rank before and after its parts, which end at `ends`, have been gathered.
struct Gathered {
  Bytes before, after;
};
Gathered gathered(int rank, const std::vector<std::size_t>& ends) {
  Gathered whole{Bytes(ends.back()), Bytes(ends.back())};
  const auto parts = parts_of(std::span(whole.after), ends);
  for (std::size_t r = 0; r < parts.size(); ++r) {
    std::ranges::copy(message(static_cast<int>(r), 0, 3, parts[r].size()), parts[r].begin());
    if (r == index(rank))
      std::ranges::copy(parts[r], whole.before.begin() + (parts[r].data() - whole.after.data()));
  }
  return whole;
}

void all_gather_fills_one_array_in_place(Place& place) {
  const int ranks = place.comm.size();
  for (const auto& ends : {awkward_ends(ranks, 5000), equal_ends(ranks, 3001), equal_ends(ranks, 0)}) {
    const Gathered wanted = gathered(place.comm.rank(), ends);
    const auto whole = place.array(wanted.before);
    place.comm.all_gather(parts_of(whole.span(), ends), "one array").wait();
    expect_equal(whole.values(), wanted.after);
  }
}

void all_gathers_fill_an_array_each(Place& place) {
  const int ranks = place.comm.size();
  const std::vector all_ends = {equal_ends(ranks, 40), awkward_ends(ranks, 300), equal_ends(ranks, 0)};
  std::vector<Place::Array<std::byte>> wholes;
  std::vector<std::vector<std::span<std::byte>>> rounds;
  for (const auto& ends : all_ends) {
    wholes.push_back(place.array(gathered(place.comm.rank(), ends).before));
    rounds.push_back(parts_of(wholes.back().span(), ends));
  }
  for (const Event& done : place.comm.all_gathers(rounds, "three arrays")) done.wait();
  for (std::size_t i = 0; i < wholes.size(); ++i)
    expect_equal(wholes[i].values(), gathered(place.comm.rank(), all_ends[i]).after);
}

// A rank's contribution of wild magnitudes, so that another order of adding gives other bits.
float contribution(int rank, std::size_t i) {
  const auto seed = static_cast<std::uint32_t>(i * 2654435761u + index(rank) * 40503u);
  return (static_cast<float>(seed >> 8) - 0x1p23f) * static_cast<float>(1u << seed % 31);
}

std::vector<float> contributions(int rank, std::size_t count) {
  std::vector<float> values(count);
  for (std::size_t i = 0; i < count; ++i) values[i] = contribution(rank, i);
  return values;
}

// Element i of the sum over the ranks: in rank order, or, where the backend chooses the order, as near as any order
// comes, by half a unit in the last place of a partial sum each time.
void expect_sum(float seen, std::size_t i, const Communicator& comm) {
  float wanted = contribution(0, i), magnitudes = std::abs(wanted);
  for (int r = 1; r < comm.size(); ++r) {
    wanted += contribution(r, i);
    magnitudes += std::abs(contribution(r, i));
  }
  const float tolerance = comm.sums() ? static_cast<float>(comm.size()) * 0x1p-23f * magnitudes : 0;
  expect(std::abs(seen - wanted) <= tolerance);
}

void all_reduce_adds_the_contributions(Place& place) {
  // The last size needs several rounds of the staging buffer.
  for (const std::size_t count : {0, 1, 3, 1000, 140'001}) {
    const auto values = place.array(contributions(place.comm.rank(), count));
    place.comm.all_reduce(values.bytes(), ReduceType::f32, ReduceOp::sum, "sum").wait();
    const std::vector<float> sums = values.values();
    for (std::size_t i = 0; i < count; ++i) expect_sum(sums[i], i, place.comm);
  }
}

void all_reduce_knows_its_types_and_operations(Place& place) {
  Communicator& comm = place.comm;
  const int rank = comm.rank(), ranks = comm.size();
  const auto sum = place.array(std::vector{0.1 * (rank + 1)}),
             largest = place.array(std::vector{rank == 0 ? -1.5 : -2.5});
  const auto integers = place.array(std::vector<std::int64_t>{std::int64_t{1} << 60, rank, -rank});
  comm.all_reduce(sum.bytes(), ReduceType::f64, ReduceOp::sum, "f64");
  comm.all_reduce(largest.bytes(), ReduceType::f64, ReduceOp::max, "max");
  comm.all_reduce(integers.bytes(), ReduceType::i64, ReduceOp::max, "i64").wait();
  double wanted = 0.1;
  for (int r = 1; r < ranks; ++r) wanted += 0.1 * (r + 1);
  expect_equal(integers.values(), std::vector<std::int64_t>{std::int64_t{1} << 60, ranks - 1, 0});
  expect_equal(largest.values(), std::vector{-1.5});
  // Any order of these positive numbers is within half a unit for each addition.
  expect(std::abs(sum.values()[0] - wanted) <= (comm.sums() ? ranks * 0x1p-53 * wanted : 0));
}

void a_non_finite_value_reaches_every_rank(Place& place) {
  std::vector<double> values(5, 1.0);
  if (place.comm.rank() == place.comm.size() - 1) values[2] = std::numeric_limits<double>::quiet_NaN();
  const auto flags = place.array(values);
  place.comm.all_reduce(flags.bytes(), ReduceType::f64, ReduceOp::sum, "flags").wait();
  values = flags.values();
  expect(std::isnan(values[2]));
  expect_equal(values[3], 1.0 * place.comm.size());
}

void reduce_scatter_leaves_each_rank_its_part_of_the_sum_where_backends_sum(Place& place) {
  Communicator& comm = place.comm;
  if (!comm.sums()) return;
  for (const auto& ends : {awkward_ends(comm.size(), 700), equal_ends(comm.size(), 70'001)}) {
    const auto values = place.array(contributions(comm.rank(), ends.back()));
    const auto parts = parts_of(values.span(), ends);
    const std::uint64_t before = comm.bytes_sent();
    comm.reduce_scatter(parts, "gradients").wait();
    const auto mine = parts[index(comm.rank())];
    const std::vector<float> sums = values.values();
    for (std::size_t i = static_cast<std::size_t>(mine.data() - values.span().data()), end = i + mine.size();
         i < end; ++i)
      expect_sum(sums[i], i, comm);
    expect_equal(comm.bytes_sent() - before, (sums.size() - mine.size()) * sizeof(float));
  }
}

void broadcast_reaches_all_from_any_root(Place& place) {
  for (int root = 0; root < place.comm.size(); ++root)
    for (const std::size_t size : {0, 1, 2, 777, 100'000}) {
      const Bytes wanted = message(root, 0, 9, size);
      const auto data = place.array(place.comm.rank() == root ? wanted : Bytes(size));
      place.comm.broadcast(data.span(), root, "weights").wait();
      expect_equal(data.values(), wanted);
    }
}

void bytes_sent_counts_payload(Place& place) {
  const std::uint64_t before = place.comm.bytes_sent();
  Exchange exchange(place, 1, 1000);
  exchange.start().wait();
  place.comm.barrier("costs nothing").wait();
  expect_equal(place.comm.bytes_sent() - before, exchange.bytes_for_others());
}

void local_ranks_count_the_ranks_of_this_host(Place& place) {
  expect_equal(place.comm.local_rank(), place.comm.rank());  // these tests run on one host
  expect_equal(place.comm.local_size(), place.comm.size());
}

void strings_of_any_length_are_gathered_in_rank_order(Place& place) {
  Communicator& comm = place.comm;
  const auto text = [](int rank) { return std::string(index(rank) * 1000, static_cast<char>('a' + rank)); };
  const auto strings = gather_strings(comm, text(comm.rank()), "names");
  expect_equal(strings.size(), index(comm.size()));
  for (int r = 0; r < comm.size(); ++r) expect_equal(strings[index(r)], text(r));
}

void agree_returns_each_rank_its_own_result(Place& place) {
  Communicator& comm = place.comm;
  expect_equal(agree(comm, "numbers", [&] { return comm.rank() * 2; }), comm.rank() * 2);
}

void agree_throws_the_error_of_the_lowest_failing_rank_everywhere(Place& place) {
  Communicator& comm = place.comm;
  const int lowest = comm.size() / 2;
  try {
    agree(comm, "open data", [&] {
      if (comm.rank() >= lowest) throw UserError("{}: no such file (seen by rank {})", "a.h5", comm.rank());
    });
    expect(false);
  } catch (const AgreedError& error) {
    expect_equal(std::string(error.what()), fmt::format("a.h5: no such file (seen by rank {})", lowest));
    // So that it is printed once.
    expect_equal(error.mine(), comm.rank() == lowest);
    expect_equal(is_printed_here(error), error.mine());
  }
  comm.barrier("the communicator still works").wait();
}

template <class Kind>
void expect_agreed_kind(Communicator& comm, const std::function<void()>& fail) {
  try {
    agree(comm, "fail", [&] {
      if (comm.rank() == comm.size() - 1) fail();
    });
    expect(false);
  } catch (const Kind& error) {
    expect(std::string(error.what()).ends_with("broken"));
    expect_equal(is_printed_here(error), comm.rank() == comm.size() - 1);
  }
}

void agree_keeps_the_kind_of_an_error(Place& place) {
  Communicator& comm = place.comm;
  expect_agreed_kind<PeerError>(comm, [] { throw PeerError("broken"); });
  expect_agreed_kind<Defect>(comm, [] { throw Defect("broken"); });
  expect_agreed_kind<Defect>(comm, [] { throw std::runtime_error("broken"); });
  expect_agreed_kind<UserError>(comm, [] { throw UserError(std::string("broken")); });
}

}  // namespace

std::span<const Behaviour> behaviours() {
  static const std::vector<Behaviour> all = [] {
    std::vector<Behaviour> table = {
        BEHAVIOUR(all_to_all_delivers_pieces_of_awkward_sizes),
        BEHAVIOUR(all_to_all_leaves_the_own_piece_alone),
        BEHAVIOUR(all_gather_fills_one_array_in_place),
        BEHAVIOUR(all_gathers_fill_an_array_each),
        BEHAVIOUR(all_reduce_adds_the_contributions),
        BEHAVIOUR(all_reduce_knows_its_types_and_operations),
        BEHAVIOUR(a_non_finite_value_reaches_every_rank),
        BEHAVIOUR(reduce_scatter_leaves_each_rank_its_part_of_the_sum_where_backends_sum),
        BEHAVIOUR(broadcast_reaches_all_from_any_root),
        BEHAVIOUR(bytes_sent_counts_payload),
        BEHAVIOUR(local_ranks_count_the_ranks_of_this_host),
        BEHAVIOUR_OF_HOSTS(strings_of_any_length_are_gathered_in_rank_order),
        BEHAVIOUR_OF_HOSTS(agree_returns_each_rank_its_own_result),
        BEHAVIOUR_OF_HOSTS(agree_throws_the_error_of_the_lowest_failing_rank_everywhere),
        BEHAVIOUR_OF_HOSTS(agree_keeps_the_kind_of_an_error),
    };
    std::ranges::copy(behaviours_of_order(), std::back_inserter(table));
    return table;
  }();
  return all;
}

std::string name_of_case(const Case& one) {
  const auto& [behaviour, ranks, delays] = one;
  return behaviours()[behaviour].name + "_on_" + std::to_string(ranks) + (delays == 0 ? "" : "_delayed");
}

}  // namespace muster

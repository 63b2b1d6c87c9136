#include "tests/comm/behaviours.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <thread>
#include <vector>

#include "comm/agree.hpp"
#include "core/error.hpp"
#include "core/stream.hpp"

namespace muster {
namespace {

using Bytes = std::vector<std::byte>;

template <class A, class B>
void expect_equal(const A& seen, const B& wanted, SourceLine where = SourceLine::current()) {
  if (!(seen == wanted))
    throw std::runtime_error(fmt::format("{}:{}: not the expected value", where.file, where.line));
}

void expect(bool holds, SourceLine where = SourceLine::current()) { expect_equal(holds, true, where); }

std::size_t index(int rank) { return static_cast<std::size_t>(rank); }

// Bytes that name their sender, receiver and collective.
Bytes message(int from, int to, int collective, std::size_t size) {
  Bytes bytes(size);
  for (std::size_t i = 0; i < size; ++i) {
    const std::size_t value = i * 131 + index(from) * 29 + index(to) * 7 + index(collective) * 3;
    bytes[i] = static_cast<std::byte>(value ^ (value >> 8));
  }
  return bytes;
}

// Messages among all ranks whose sizes differ: some pairs exchange nothing.
std::size_t awkward_size(int from, int to, std::size_t scale) {
  const int kind = (from * 7 + to * 3) % 5;
  return kind == 0 ? 0 : kind == 1 ? 1 : static_cast<std::size_t>(kind * 2 + 1) * scale + index(from);
}

struct Exchange {
  Exchange(Place& place, int number, std::size_t scale) : Exchange(place, place.comm, number, scale) {}
  Exchange(Place& place, Communicator& its_comm, int number, std::size_t scale)
      : comm(its_comm), collective(number) {
    for (int peer = 0; peer < comm.size(); ++peer) {
      const int rank = comm.rank();
      outgoing.push_back(place.array(message(rank, peer, collective, awkward_size(rank, peer, scale))));
      incoming.push_back(place.array(Bytes(awkward_size(peer, rank, scale))));
    }
  }

  Event start(const Event& after = {}) {
    std::vector<std::span<const std::byte>> send;
    std::vector<std::span<std::byte>> receive;
    for (const auto& piece : outgoing) send.push_back(piece.span());
    for (const auto& piece : incoming) receive.push_back(piece.span());
    return comm.all_to_all(send, receive, "exchange " + std::to_string(collective), after);
  }

  void expect_arrived() const {
    for (int peer = 0; peer < comm.size(); ++peer) {
      if (peer == comm.rank()) continue;
      const Bytes arrived = incoming[index(peer)].values();
      expect_equal(arrived, message(peer, comm.rank(), collective, arrived.size()));
    }
  }

  std::uint64_t bytes_for_others() const {
    std::uint64_t bytes = 0;
    for (int peer = 0; peer < comm.size(); ++peer)
      if (peer != comm.rank()) bytes += outgoing[index(peer)].span().size();
    return bytes;
  }

  Communicator& comm;
  int collective;
  std::vector<Place::Array<std::byte>> outgoing, incoming;
};

// The parts of one array that end at `ends`.
template <class T>
std::vector<std::span<T>> parts_of(std::span<T> whole, const std::vector<std::size_t>& ends) {
  std::vector<std::span<T>> parts;
  for (std::size_t begin = 0; const std::size_t end : ends) {
    parts.push_back(whole.subspan(begin, end - begin));
    begin = end;
  }
  return parts;
}

// Equal parts for the ranks, or parts of sizes that differ, some of them empty.
std::vector<std::size_t> equal_ends(int ranks, std::size_t size) {
  std::vector<std::size_t> ends;
  for (int r = 1; r <= ranks; ++r) ends.push_back(index(r) * size);
  return ends;
}
std::vector<std::size_t> awkward_ends(int ranks, std::size_t scale) {
  std::vector<std::size_t> ends;
  for (int r = 0; r < ranks; ++r)
    ends.push_back((ends.empty() ? 0 : ends.back()) + awkward_size(r, 1, scale));
  return ends;
}

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

void all_gather_fills_one_array_in_place(Place& place) {
  const int rank = place.comm.rank(), ranks = place.comm.size();
  for (const auto& ends : {awkward_ends(ranks, 5000), equal_ends(ranks, 3001), equal_ends(ranks, 0)}) {
    Bytes values(ends.back()), wanted(ends.back());
    const auto wanted_parts = parts_of(std::span(wanted), ends);
    for (int r = 0; r < ranks; ++r) {
      const auto part = wanted_parts[index(r)];
      std::ranges::copy(message(r, 0, 3, part.size()), part.begin());
      if (r == rank) std::ranges::copy(part, values.begin() + (part.data() - wanted.data()));
    }
    const auto whole = place.array(values);
    place.comm.all_gather(parts_of(whole.span(), ends), "one array").wait();
    expect_equal(whole.values(), wanted);
  }
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

void a_barrier_lets_nobody_through_before_all_have_come(Place& place) {
  // Each rank's arrival travels behind its barrier's back: by the exchange that it had completed before.
  Communicator& comm = place.comm;
  for (int late = 0; late < comm.size(); ++late) {
    if (comm.rank() == late) std::this_thread::sleep_for(std::chrono::milliseconds(20));
    const auto arrived = std::chrono::system_clock::now().time_since_epoch().count();
    comm.barrier("gate").wait();
    const auto left = std::chrono::system_clock::now().time_since_epoch().count();
    // One host, one clock.
    std::vector<std::int64_t> mine(index(comm.size()));
    mine[index(comm.rank())] = arrived;
    const auto times = place.array(mine);
    comm.all_gather(parts_of(times.bytes(), equal_ends(comm.size(), sizeof(arrived))), "times").wait();
    for (const std::int64_t time : times.values()) expect(time <= left);
  }
}

void many_collectives_in_flight_do_not_mix(Place& place) {
  std::vector<Exchange> exchanges;
  std::vector<Place::Array<double>> sums;
  std::vector<Event> events;
  for (int i = 0; i < 24; ++i) {
    exchanges.emplace_back(place, i, static_cast<std::size_t>(i * i));
    sums.push_back(place.array(std::vector<double>{double(i + place.comm.rank())}));
  }
  for (int i = 0; i < 24; ++i) {
    events.push_back(exchanges[index(i)].start());
    events.push_back(place.comm.all_reduce(sums[index(i)].bytes(), ReduceType::f64, ReduceOp::sum, "sum"));
  }
  for (auto event = events.rbegin(); event != events.rend(); ++event) event->wait();
  for (const Exchange& exchange : exchanges) exchange.expect_arrived();
  const int ranks = place.comm.size();
  for (int i = 0; i < 24; ++i)
    expect_equal(sums[index(i)].values()[0], double(i * ranks + ranks * (ranks - 1) / 2));
}

void memory_is_read_only_after_its_event(Place& place) {
  // What is sent is written after the collective was issued, by a stream of its own, which each time has much to do
  // before; half of the times a thread of the host writes it.
  Communicator& comm = place.comm;
  constexpr int rows = 6;
  const auto ranks = index(comm.size());
  const std::vector<std::byte> load(1 << 20);
  const auto busy = place.array(load);
  const auto values = place.array(std::vector<std::int64_t>(ranks * rows));
  std::vector<std::int64_t> written(rows);
  const auto compute = place.device.make_stream(StreamPriority::normal);
  ThreadStream host([] { std::this_thread::sleep_for(std::chrono::microseconds(300)); });
  std::vector<Event> done;
  for (int row = 0; row < rows; ++row) {
    written[index(row)] = 100 * row + comm.rank();
    const auto whole = values.span().subspan(index(row) * ranks, ranks);
    std::int64_t* const to = &whole[index(comm.rank())];
    const std::int64_t* const from = &written[index(row)];
    if (row % 2 == 0) {
      compute->copy(busy.span().data(), load.data(), load.size());
      compute->copy(to, from, sizeof(*to));
    } else {
      host.enqueue([&place, to, from](NativeStream) {
        place.device.use();
        const auto own = place.device.make_stream(StreamPriority::normal);
        own->copy(to, from, sizeof(*to));
        own->synchronize();
      });
    }
    done.push_back(
        comm.all_gather(parts_of(std::as_writable_bytes(whole), equal_ends(comm.size(), sizeof(*to))), "row",
                        row % 2 == 0 ? compute->record() : host.record()));
  }
  for (auto event = done.rbegin(); event != done.rend(); ++event) event->wait();
  const std::vector<std::int64_t> seen = values.values();
  for (int row = 0; row < rows; ++row)
    for (int r = 0; r < comm.size(); ++r)
      expect_equal(seen[index(row) * ranks + index(r)], std::int64_t{100 * row + r});
}

void streams_of_the_device_wait_for_a_collective(Place& place) {
  // What has come is read by a stream that only waits for the event.
  const auto reader = place.device.make_stream(StreamPriority::normal);
  Communicator& comm = place.comm;
  for (int root = 0; root < comm.size(); ++root) {
    const Bytes wanted = message(root, 0, 1, 30'000);
    const auto data = place.array(comm.rank() == root ? wanted : Bytes(wanted.size()));
    const auto copy = place.array(Bytes(wanted.size()));
    reader->wait(comm.broadcast(data.span(), root, "weights"));
    reader->copy(copy.span().data(), data.span().data(), wanted.size());
    reader->synchronize();
    expect_equal(copy.values(), wanted);
  }
}

void collectives_start_in_the_order_of_issue_whatever_completes_first(Place& place) {
  // The later events complete first, and in another order on each rank.
  std::vector<Exchange> exchanges;
  const std::vector<Promise> after(4);
  std::vector<Event> done;
  for (int i = 0; i < 4; ++i) exchanges.emplace_back(place, i, 50);
  for (int i = 0; i < 4; ++i) done.push_back(exchanges[index(i)].start(after[index(i)].event()));
  expect(!done[3].complete());
  for (int i = 3; i >= 0; --i) after[index((i + place.comm.rank()) % 4)].set_complete();
  for (const Event& event : done) event.wait();
  for (const Exchange& exchange : exchanges) exchange.expect_arrived();
}

void a_collective_waits_for_its_event(Place& place) {
  const Promise after;
  Exchange exchange(place, 1, 10);
  const Event done = exchange.start(after.event());
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  expect(!done.complete());
  expect(!place.comm.oldest_pending());  // the time until its event is complete is not a peer's fault
  after.set_complete();
  done.wait();
  exchange.expect_arrived();
}

void bytes_sent_counts_payload(Place& place) {
  const std::uint64_t before = place.comm.bytes_sent();
  Exchange exchange(place, 1, 1000);
  exchange.start().wait();
  place.comm.barrier("costs nothing").wait();
  expect_equal(place.comm.bytes_sent() - before, exchange.bytes_for_others());
}

void split_makes_communicators_of_equal_color_ordered_by_key(Place& place) {
  Communicator& comm = place.comm;
  const auto part = comm.split(comm.rank() % 2, -comm.rank());
  std::vector<int> members;
  for (int r = comm.size() - 1; r >= 0; --r)
    if (r % 2 == comm.rank() % 2) members.push_back(r);
  expect_equal(part->size(), static_cast<int>(members.size()));
  expect_equal(members[index(part->rank())], comm.rank());
  // Collectives of both cross each other.
  Exchange wide(place, 1, 300), narrow(place, *part, 2, 300);
  const Event a = wide.start(), b = narrow.start();
  b.wait();
  a.wait();
  wide.expect_arrived();
  narrow.expect_arrived();
  const auto alone = part->split(part->rank(), 0);
  expect_equal(alone->size(), 1);
  alone->barrier("alone").wait();
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

#define BEHAVIOUR(name) \
  Behaviour { #name, name }
#define BEHAVIOUR_OF_HOSTS(name) \
  Behaviour { #name, name, true }

}  // namespace

std::span<const Behaviour> behaviours() {
  static const std::vector<Behaviour> all = {
      BEHAVIOUR(all_to_all_delivers_pieces_of_awkward_sizes),
      BEHAVIOUR(all_to_all_leaves_the_own_piece_alone),
      BEHAVIOUR(all_gather_fills_one_array_in_place),
      BEHAVIOUR(all_reduce_adds_the_contributions),
      BEHAVIOUR(all_reduce_knows_its_types_and_operations),
      BEHAVIOUR(a_non_finite_value_reaches_every_rank),
      BEHAVIOUR(reduce_scatter_leaves_each_rank_its_part_of_the_sum_where_backends_sum),
      BEHAVIOUR(broadcast_reaches_all_from_any_root),
      BEHAVIOUR(a_barrier_lets_nobody_through_before_all_have_come),
      BEHAVIOUR(many_collectives_in_flight_do_not_mix),
      BEHAVIOUR(memory_is_read_only_after_its_event),
      BEHAVIOUR(streams_of_the_device_wait_for_a_collective),
      BEHAVIOUR(collectives_start_in_the_order_of_issue_whatever_completes_first),
      BEHAVIOUR(a_collective_waits_for_its_event),
      BEHAVIOUR(bytes_sent_counts_payload),
      BEHAVIOUR(split_makes_communicators_of_equal_color_ordered_by_key),
      BEHAVIOUR(local_ranks_count_the_ranks_of_this_host),
      BEHAVIOUR_OF_HOSTS(strings_of_any_length_are_gathered_in_rank_order),
      BEHAVIOUR_OF_HOSTS(agree_returns_each_rank_its_own_result),
      BEHAVIOUR_OF_HOSTS(agree_throws_the_error_of_the_lowest_failing_rank_everywhere),
      BEHAVIOUR_OF_HOSTS(agree_keeps_the_kind_of_an_error),
  };
  return all;
}

std::string name_of_case(const Case& one) {
  const auto& [behaviour, ranks, delays] = one;
  return behaviours()[behaviour].name + "_on_" + std::to_string(ranks) + (delays == 0 ? "" : "_delayed");
}

}  // namespace muster

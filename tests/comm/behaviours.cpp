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
  Exchange(const Communicator& comm, int number, std::size_t scale) : rank(comm.rank()), collective(number) {
    for (int peer = 0; peer < comm.size(); ++peer) {
      outgoing.push_back(message(rank, peer, collective, awkward_size(rank, peer, scale)));
      incoming.emplace_back(awkward_size(peer, rank, scale));
    }
  }

  Event start(Communicator& comm, const Event& after = {}) {
    const std::vector<std::span<const std::byte>> send(outgoing.begin(), outgoing.end());
    const std::vector<std::span<std::byte>> receive(incoming.begin(), incoming.end());
    return comm.all_to_all(send, receive, "exchange " + std::to_string(collective), after);
  }

  void expect_arrived() const {
    for (std::size_t peer = 0; peer < incoming.size(); ++peer)
      if (static_cast<int>(peer) != rank)
        expect_equal(incoming[peer],
                     message(static_cast<int>(peer), rank, collective, incoming[peer].size()));
  }

  int rank;
  int collective;
  std::vector<Bytes> outgoing, incoming;
};

void all_to_all_delivers_pieces_of_awkward_sizes(Communicator& comm) {
  for (const std::size_t scale : {1, 63, 4096, 50'003}) {
    Exchange exchange(comm, static_cast<int>(scale), scale);
    exchange.start(comm).wait();
    exchange.expect_arrived();
  }
}

void all_to_all_leaves_the_own_piece_alone(Communicator& comm) {
  std::vector<std::int32_t> sent(index(comm.size()), comm.rank() + 1), received(index(comm.size()), -1);
  std::vector<std::span<const std::byte>> send;
  std::vector<std::span<std::byte>> receive;
  for (std::size_t r = 0; r < sent.size(); ++r) {
    send.push_back(std::as_bytes(std::span(&sent[r], 1)));
    receive.push_back(std::as_writable_bytes(std::span(&received[r], 1)));
  }
  comm.all_to_all(send, receive, "numbers").wait();
  for (int r = 0; r < comm.size(); ++r) expect_equal(received[index(r)], r == comm.rank() ? -1 : r + 1);
}

void all_gather_fills_one_array_in_place(Communicator& comm) {
  std::vector<std::size_t> ends(index(comm.size()));
  for (int r = 0; r < comm.size(); ++r)
    ends[index(r)] = (r > 0 ? ends[index(r) - 1] : 0) + awkward_size(r, 1, 5000);
  Bytes whole(ends.back());
  std::vector<std::span<std::byte>> pieces;
  for (std::size_t r = 0; r < ends.size(); ++r) {
    const std::size_t begin = r > 0 ? ends[r - 1] : 0;
    pieces.push_back(std::span(whole).subspan(begin, ends[r] - begin));
  }
  const std::span<std::byte> own = pieces[index(comm.rank())];
  std::ranges::copy(message(comm.rank(), 0, 3, own.size()), own.begin());
  comm.all_gather(pieces, "one array").wait();
  for (int r = 0; r < comm.size(); ++r)
    expect(std::ranges::equal(pieces[index(r)], message(r, 0, 3, pieces[index(r)].size())));
}

// A rank's contribution of wild magnitudes, so that another order of adding gives other bits.
float contribution(int rank, std::size_t i) {
  const auto seed = static_cast<std::uint32_t>(i * 2654435761u + index(rank) * 40503u);
  return (static_cast<float>(seed >> 8) - 0x1p23f) * static_cast<float>(1u << seed % 31);
}

void all_reduce_adds_in_rank_order(Communicator& comm) {
  // The last size needs several rounds of the staging buffer.
  for (const std::size_t count : {0, 1, 3, 1000, 140'001}) {
    std::vector<float> values(count);
    for (std::size_t i = 0; i < count; ++i) values[i] = contribution(comm.rank(), i);
    comm.all_reduce(std::as_writable_bytes(std::span(values)), ReduceType::f32, ReduceOp::sum, "sum").wait();
    for (std::size_t i = 0; i < count; ++i) {
      float wanted = contribution(0, i);
      for (int r = 1; r < comm.size(); ++r) wanted += contribution(r, i);
      expect_equal(values[i], wanted);
    }
  }
}

void all_reduce_knows_its_types_and_operations(Communicator& comm) {
  const int ranks = comm.size();
  double sum = 0.1 * (comm.rank() + 1), largest = comm.rank() == 0 ? -1.5 : -2.5;
  std::vector<std::int64_t> integers = {std::int64_t{1} << 60, comm.rank(), -comm.rank()};
  comm.all_reduce(std::as_writable_bytes(std::span(&sum, 1)), ReduceType::f64, ReduceOp::sum, "f64");
  comm.all_reduce(std::as_writable_bytes(std::span(&largest, 1)), ReduceType::f64, ReduceOp::max, "max");
  comm.all_reduce(std::as_writable_bytes(std::span(integers)), ReduceType::i64, ReduceOp::max, "i64").wait();
  comm.barrier("all done").wait();
  double wanted = 0.1;
  for (int r = 1; r < ranks; ++r) wanted += 0.1 * (r + 1);
  expect_equal(integers, std::vector<std::int64_t>{std::int64_t{1} << 60, ranks - 1, 0});
  expect_equal(largest, -1.5);
  expect_equal(sum, wanted);
}

void a_non_finite_value_reaches_every_rank(Communicator& comm) {
  std::vector<double> values(5, 1.0);
  if (comm.rank() == comm.size() - 1) values[2] = std::numeric_limits<double>::quiet_NaN();
  comm.all_reduce(std::as_writable_bytes(std::span(values)), ReduceType::f64, ReduceOp::sum, "flags").wait();
  expect(std::isnan(values[2]));
  expect_equal(values[3], 1.0 * comm.size());
}

void broadcast_reaches_all_from_any_root(Communicator& comm) {
  for (int root = 0; root < comm.size(); ++root)
    for (const std::size_t size : {0, 1, 2, 777, 100'000}) {
      const Bytes wanted = message(root, 0, 9, size);
      Bytes data = comm.rank() == root ? wanted : Bytes(size);
      comm.broadcast(data, root, "weights").wait();
      expect_equal(data, wanted);
    }
}

void a_barrier_lets_nobody_through_before_all_have_come(Communicator& comm) {
  // Each rank's arrival travels behind its barrier's back: by the exchange that it had completed before.
  for (int late = 0; late < comm.size(); ++late) {
    if (comm.rank() == late) std::this_thread::sleep_for(std::chrono::milliseconds(20));
    const auto arrived = std::chrono::system_clock::now().time_since_epoch().count();
    comm.barrier("gate").wait();
    const auto left = std::chrono::system_clock::now().time_since_epoch().count();
    // One host, one clock.
    const auto times = gather_strings(comm, std::to_string(arrived), "times");
    for (const std::string& time : times) expect(std::stoll(time) <= left);
  }
}

void many_collectives_in_flight_do_not_mix(Communicator& comm) {
  std::vector<Exchange> exchanges;
  std::vector<Event> events;
  std::vector<double> sums(24);
  for (int i = 0; i < 24; ++i) exchanges.emplace_back(comm, i, static_cast<std::size_t>(i * i));
  for (int i = 0; i < 24; ++i) {
    events.push_back(exchanges[index(i)].start(comm));
    sums[index(i)] = i + comm.rank();
    events.push_back(comm.all_reduce(std::as_writable_bytes(std::span(&sums[index(i)], 1)), ReduceType::f64,
                                     ReduceOp::sum, "sum"));
  }
  for (auto event = events.rbegin(); event != events.rend(); ++event) event->wait();
  for (const Exchange& exchange : exchanges) exchange.expect_arrived();
  const int ranks = comm.size();
  for (int i = 0; i < 24; ++i) expect_equal(sums[index(i)], double(i * ranks + ranks * (ranks - 1) / 2));
}

void memory_is_read_only_after_its_event(Communicator& comm) {
  // What is sent is written after the collective was issued, by a stream of its own.
  ThreadStream compute([] { std::this_thread::sleep_for(std::chrono::microseconds(300)); });
  std::vector<std::int64_t> values(index(comm.size()) * 6);
  std::vector<Event> done;
  for (int step = 0; step < 6; ++step) {
    const auto row = std::span(values).subspan(index(step) * index(comm.size()), index(comm.size()));
    compute.enqueue([row, step, &comm](NativeStream) { row[index(comm.rank())] = 100 * step + comm.rank(); });
    std::vector<std::span<std::byte>> pieces;
    for (std::int64_t& value : row) pieces.push_back(std::as_writable_bytes(std::span(&value, 1)));
    done.push_back(comm.all_gather(pieces, "row", compute.record()));
  }
  for (int step = 5; step >= 0; --step) {
    done[index(step)].wait();
    for (int r = 0; r < comm.size(); ++r)
      expect_equal(values[index(step) * index(comm.size()) + index(r)], 100 * step + r);
  }
}

void collectives_start_in_the_order_of_issue_whatever_completes_first(Communicator& comm) {
  // The later events complete first, and in another order on each rank.
  std::vector<Exchange> exchanges;
  const std::vector<Promise> after(4);
  std::vector<Event> done;
  for (int i = 0; i < 4; ++i) exchanges.emplace_back(comm, i, 50);
  for (int i = 0; i < 4; ++i) done.push_back(exchanges[index(i)].start(comm, after[index(i)].event()));
  expect(!done[3].complete());
  for (int i = 3; i >= 0; --i) after[index((i + comm.rank()) % 4)].set_complete();
  for (const Event& event : done) event.wait();
  for (const Exchange& exchange : exchanges) exchange.expect_arrived();
}

void a_collective_waits_for_its_event(Communicator& comm) {
  const Promise after;
  Exchange exchange(comm, 1, 10);
  const std::uint64_t before = comm.bytes_sent();
  const Event done = exchange.start(comm, after.event());
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  expect(!done.complete());
  expect_equal(comm.bytes_sent(), before);
  expect(!comm.oldest_pending());  // the time until its event is complete is not a peer's fault
  after.set_complete();
  done.wait();
}

void bytes_sent_counts_payload(Communicator& comm) {
  const std::uint64_t before = comm.bytes_sent();
  Exchange exchange(comm, 1, 1000);
  exchange.start(comm).wait();
  comm.barrier("costs nothing").wait();
  std::uint64_t wanted = 0;
  for (int peer = 0; peer < comm.size(); ++peer)
    if (peer != comm.rank()) wanted += exchange.outgoing[index(peer)].size();
  expect_equal(comm.bytes_sent() - before, wanted);
}

void split_makes_communicators_of_equal_color_ordered_by_key(Communicator& comm) {
  const auto part = comm.split(comm.rank() % 2, -comm.rank());
  std::vector<int> members;
  for (int r = comm.size() - 1; r >= 0; --r)
    if (r % 2 == comm.rank() % 2) members.push_back(r);
  expect_equal(part->size(), static_cast<int>(members.size()));
  expect_equal(members[index(part->rank())], comm.rank());
  // Collectives of both cross each other.
  Exchange wide(comm, 1, 300), narrow(*part, 2, 300);
  const Event a = wide.start(comm), b = narrow.start(*part);
  b.wait();
  a.wait();
  wide.expect_arrived();
  narrow.expect_arrived();
  const auto alone = part->split(part->rank(), 0);
  expect_equal(alone->size(), 1);
  alone->barrier("alone").wait();
}

void local_ranks_count_the_ranks_of_this_host(Communicator& comm) {
  expect_equal(comm.local_rank(), comm.rank());  // these tests run on one host
  expect_equal(comm.local_size(), comm.size());
}

void strings_of_any_length_are_gathered_in_rank_order(Communicator& comm) {
  const auto text = [](int rank) { return std::string(index(rank) * 1000, static_cast<char>('a' + rank)); };
  const auto strings = gather_strings(comm, text(comm.rank()), "names");
  expect_equal(strings.size(), index(comm.size()));
  for (int r = 0; r < comm.size(); ++r) expect_equal(strings[index(r)], text(r));
}

void agree_returns_each_rank_its_own_result(Communicator& comm) {
  expect_equal(agree(comm, "numbers", [&] { return comm.rank() * 2; }), comm.rank() * 2);
}

void agree_throws_the_error_of_the_lowest_failing_rank_everywhere(Communicator& comm) {
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

void agree_keeps_the_kind_of_an_error(Communicator& comm) {
  expect_agreed_kind<PeerError>(comm, [] { throw PeerError("broken"); });
  expect_agreed_kind<Defect>(comm, [] { throw Defect("broken"); });
  expect_agreed_kind<Defect>(comm, [] { throw std::runtime_error("broken"); });
  expect_agreed_kind<UserError>(comm, [] { throw UserError(std::string("broken")); });
}

#define BEHAVIOUR(name) \
  Behaviour { #name, name }

}  // namespace

std::span<const Behaviour> behaviours() {
  static const std::vector<Behaviour> all = {
      BEHAVIOUR(all_to_all_delivers_pieces_of_awkward_sizes),
      BEHAVIOUR(all_to_all_leaves_the_own_piece_alone),
      BEHAVIOUR(all_gather_fills_one_array_in_place),
      BEHAVIOUR(all_reduce_adds_in_rank_order),
      BEHAVIOUR(all_reduce_knows_its_types_and_operations),
      BEHAVIOUR(a_non_finite_value_reaches_every_rank),
      BEHAVIOUR(broadcast_reaches_all_from_any_root),
      BEHAVIOUR(a_barrier_lets_nobody_through_before_all_have_come),
      BEHAVIOUR(many_collectives_in_flight_do_not_mix),
      BEHAVIOUR(memory_is_read_only_after_its_event),
      BEHAVIOUR(collectives_start_in_the_order_of_issue_whatever_completes_first),
      BEHAVIOUR(a_collective_waits_for_its_event),
      BEHAVIOUR(bytes_sent_counts_payload),
      BEHAVIOUR(split_makes_communicators_of_equal_color_ordered_by_key),
      BEHAVIOUR(local_ranks_count_the_ranks_of_this_host),
      BEHAVIOUR(strings_of_any_length_are_gathered_in_rank_order),
      BEHAVIOUR(agree_returns_each_rank_its_own_result),
      BEHAVIOUR(agree_throws_the_error_of_the_lowest_failing_rank_everywhere),
      BEHAVIOUR(agree_keeps_the_kind_of_an_error),
  };
  return all;
}

}  // namespace muster

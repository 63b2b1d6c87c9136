// When things happen: before and after events, in what order, and across communicators.
#include <chrono>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include "core/stream.hpp"
#include "tests/comm/behaviours.hpp"
#include "tests/comm/messages.hpp"

namespace muster {
namespace {

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
  // Made before and destroyed after: either could wait for the device, where a stream may wait for this thread.
  const auto compute = place.device.make_stream(StreamPriority::normal),
             of_host = place.device.make_stream(StreamPriority::normal);
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
      host.enqueue([&place, &of_host, to, from](NativeStream) {
        place.device.use();
        of_host->copy(to, from, sizeof(*to));
        of_host->synchronize();
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

// A first message between two ranks makes their connection, which could wait for a stream that waits for this thread.
void connect(Place& place) { Exchange(place, 0, 50).start().wait(); }

void collectives_start_in_the_order_of_issue_whatever_completes_first(Place& place) {
  // The later events complete first, and in another order on each rank.
  connect(place);
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
  connect(place);
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

}  // namespace

std::vector<Behaviour> behaviours_of_order() {
  return {
      BEHAVIOUR(a_barrier_lets_nobody_through_before_all_have_come),
      BEHAVIOUR(many_collectives_in_flight_do_not_mix),
      BEHAVIOUR(memory_is_read_only_after_its_event),
      BEHAVIOUR(streams_of_the_device_wait_for_a_collective),
      BEHAVIOUR(collectives_start_in_the_order_of_issue_whatever_completes_first),
      BEHAVIOUR(a_collective_waits_for_its_event),
      BEHAVIOUR(split_makes_communicators_of_equal_color_ordered_by_key),
  };
}

}  // namespace muster

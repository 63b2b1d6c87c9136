#include "trainer/bench/comm.hpp"

#include <algorithm>
#include <utility>

#include "core/error.hpp"
#include "trainer/bench/measure.hpp"
#include "trainer/failure.hpp"

namespace muster {
namespace {

// Small collectives are many, so that starting and ending the row does not count.
int row_length(std::uint64_t bytes) {
  return static_cast<int>(
      std::clamp<std::uint64_t>((std::uint64_t{4} << 20) / std::max<std::uint64_t>(bytes, 1), 1, 32));
}

double of_slowest_rank(Communicator& comm, Machine& machine, double seconds) {
  const Buffer shared = machine.take(MemoryKind::communication, sizeof(double));
  machine.stream().copy(shared.data(), &seconds, sizeof(double));
  machine.stream().synchronize();
  ending_job_when_alone(comm, [&] {
    comm.all_reduce({shared.data(), sizeof(double)}, ReduceType::f64, ReduceOp::max,
                    "time of the slowest rank")
        .wait();
  });
  machine.stream().copy(&seconds, shared.data(), sizeof(double));
  machine.stream().synchronize();
  return seconds;
}

}  // namespace

double CollectiveSpeed::busbw() const {
  const double moved = static_cast<double>(ranks - 1) / ranks;
  return algbw() * (collective == "all_reduce" ? 2 * moved : moved);
}

std::vector<std::uint64_t> collective_sizes() {
  std::vector<std::uint64_t> sizes;
  for (std::uint64_t bytes = 1 << 10; bytes <= 64 << 20; bytes *= 4) sizes.push_back(bytes);
  return sizes;
}

std::vector<std::string> collectives_of(const Communicator& comm) {
  std::vector<std::string> names = {"all_to_all", "all_gather", "all_reduce"};
  if (comm.sums()) names.emplace_back("reduce_scatter");
  return names;
}

CollectiveRow::CollectiveRow(Communicator& comm, Machine& machine, std::string collective,
                             std::uint64_t bytes, int length)
    : comm_(comm),
      machine_(machine),
      collective_(std::move(collective)),
      length_(length),
      piece_(sizeof(float) *
             std::max(bytes / static_cast<std::uint64_t>(comm.size()) / sizeof(float), std::uint64_t{1})),
      own_(account_, MemoryKind::communication, this->bytes(), machine.device().memory()),
      other_(account_, MemoryKind::communication, this->bytes(), machine.device().memory()) {
  run();  // libraries set up what they need
}

double CollectiveRow::run() {
  return ending_job_when_alone(comm_, [&] {
    comm_.barrier("bench").wait();
    const double begin = steady_seconds();
    Event last;
    for (int i = 0; i < length_; ++i) last = start(last);
    last.wait();
    return (steady_seconds() - begin) / length_;
  });
}

double CollectiveRow::seconds() const { return of_slowest_rank(comm_, machine_, median(seconds_)); }

Event CollectiveRow::start(const Event& after) {
  if (collective_ == "all_gather") return comm_.all_gather(pieces(own_), collective_, after);
  if (collective_ == "all_reduce")
    return comm_.all_reduce({own_.data(), own_.bytes()}, ReduceType::f32, ReduceOp::sum, collective_, after);
  if (collective_ == "reduce_scatter") {
    std::vector<std::span<float>> floats;
    for (const std::span<std::byte> piece : pieces(own_))
      floats.emplace_back(reinterpret_cast<float*>(piece.data()), piece.size() / sizeof(float));
    return comm_.reduce_scatter(floats, collective_, after);
  }
  check(collective_ == "all_to_all", "a collective that is measured");
  std::vector<std::span<const std::byte>> send;
  for (const std::span<std::byte> piece : pieces(own_)) send.emplace_back(piece);
  return comm_.all_to_all(send, pieces(other_), collective_, after);
}

std::vector<std::span<std::byte>> CollectiveRow::pieces(const Buffer& whole) const {
  std::vector<std::span<std::byte>> all;
  for (int rank = 0; rank < comm_.size(); ++rank)
    all.emplace_back(whole.data() + static_cast<std::uint64_t>(rank) * piece_, piece_);
  return all;
}

CollectiveSpeed measure_collective(Communicator& comm, Machine& machine, const std::string& collective,
                                   std::uint64_t bytes) {
  CollectiveRow row(comm, machine, collective, bytes, row_length(bytes));
  for (int i = 0; i < 5; ++i) row.measure();
  return {collective, comm.size(), row.bytes(), row.seconds()};
}

}  // namespace muster

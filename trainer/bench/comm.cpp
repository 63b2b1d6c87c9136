#include "trainer/bench/comm.hpp"

#include <algorithm>

#include "core/error.hpp"
#include "trainer/bench/measure.hpp"
#include "trainer/failure.hpp"

namespace muster {
namespace {

constexpr int rounds = 5;

// Collectives in a row: small ones are many, so that starting and ending the row does not count.
int row_length(std::uint64_t bytes) {
  return static_cast<int>(
      std::clamp<std::uint64_t>((std::uint64_t{4} << 20) / std::max<std::uint64_t>(bytes, 1), 1, 32));
}

// The memory of the collectives of one size.
class Collectives {
 public:
  Collectives(Communicator& comm, Machine& machine, std::uint64_t piece)
      : comm_(comm),
        ranks_(static_cast<std::size_t>(comm.size())),
        piece_(piece),
        own_(account_, MemoryKind::communication, piece * ranks_, machine.device().memory()),
        other_(account_, MemoryKind::communication, piece * ranks_, machine.device().memory()) {}

  Event start(const std::string& collective, const Event& after) {
    if (collective == "all_gather") return comm_.all_gather(pieces(own_), collective, after);
    if (collective == "all_reduce")
      return comm_.all_reduce({own_.data(), own_.bytes()}, ReduceType::f32, ReduceOp::sum, collective, after);
    if (collective == "reduce_scatter") {
      std::vector<std::span<float>> floats;
      for (const std::span<std::byte> piece : pieces(own_))
        floats.emplace_back(reinterpret_cast<float*>(piece.data()), piece.size() / sizeof(float));
      return comm_.reduce_scatter(floats, collective, after);
    }
    check(collective == "all_to_all", "a collective that is measured");
    std::vector<std::span<const std::byte>> send;
    for (const std::span<std::byte> piece : pieces(own_)) send.emplace_back(piece);
    return comm_.all_to_all(send, pieces(other_), collective, after);
  }

 private:
  std::vector<std::span<std::byte>> pieces(const Buffer& whole) const {
    std::vector<std::span<std::byte>> all;
    for (std::size_t rank = 0; rank < ranks_; ++rank) all.emplace_back(whole.data() + rank * piece_, piece_);
    return all;
  }

  Communicator& comm_;
  MemoryAccount account_;
  std::size_t ranks_;
  std::uint64_t piece_;
  Buffer own_, other_;
};

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

CollectiveSpeed measure_collective(Communicator& comm, Machine& machine, const std::string& collective,
                                   std::uint64_t bytes) {
  const auto ranks = static_cast<std::uint64_t>(comm.size());
  const std::uint64_t piece = std::max(bytes / ranks / sizeof(float), std::uint64_t{1}) * sizeof(float);
  Collectives collectives(comm, machine, piece);
  const int length = row_length(bytes);
  std::vector<double> seconds;
  ending_job_when_alone(comm, [&] {
    collectives.start(collective, {}).wait();
    for (int round = 0; round < rounds; ++round) {
      comm.barrier("bench").wait();
      const double begin = steady_seconds();
      Event last;
      for (int i = 0; i < length; ++i) last = collectives.start(collective, last);
      last.wait();
      seconds.push_back((steady_seconds() - begin) / length);
    }
  });
  return {collective, comm.size(), piece * ranks, of_slowest_rank(comm, machine, median(seconds))};
}

}  // namespace muster

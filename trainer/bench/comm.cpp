#include "trainer/bench/comm.hpp"

#include <algorithm>
#include <functional>

#include "trainer/bench/measure.hpp"

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

  Event all_to_all(const Event& after) {
    std::vector<std::span<const std::byte>> send;
    for (const std::span<std::byte> piece : pieces(own_)) send.emplace_back(piece);
    return comm_.all_to_all(send, pieces(other_), "bench", after);
  }
  Event all_gather(const Event& after) { return comm_.all_gather(pieces(own_), "bench", after); }
  Event reduce_scatter(const Event& after) {
    std::vector<std::span<float>> floats;
    for (const std::span<std::byte> piece : pieces(own_))
      floats.emplace_back(reinterpret_cast<float*>(piece.data()), piece.size() / sizeof(float));
    return comm_.reduce_scatter(floats, "bench", after);
  }
  Event all_reduce(const Event& after) {
    return comm_.all_reduce({own_.data(), own_.bytes()}, ReduceType::f32, ReduceOp::sum, "bench", after);
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
  comm.all_reduce({shared.data(), sizeof(double)}, ReduceType::f64, ReduceOp::max, "time of the slowest rank")
      .wait();
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

std::vector<CollectiveSpeed> bench_comm(Communicator& comm, Machine& machine,
                                        std::span<const std::uint64_t> sizes) {
  using Start = std::function<Event(Collectives&, const Event&)>;
  std::vector<std::pair<std::string, Start>> kinds = {{"all_to_all", &Collectives::all_to_all},
                                                      {"all_gather", &Collectives::all_gather},
                                                      {"all_reduce", &Collectives::all_reduce}};
  if (comm.sums()) kinds.emplace_back("reduce_scatter", &Collectives::reduce_scatter);

  std::vector<CollectiveSpeed> speeds;
  const auto ranks = static_cast<std::uint64_t>(comm.size());
  for (const auto& [name, start] : kinds)
    for (const std::uint64_t size : sizes) {
      const std::uint64_t piece = std::max(size / ranks / sizeof(float), std::uint64_t{1}) * sizeof(float);
      Collectives collectives(comm, machine, piece);
      const int length = row_length(size);
      std::vector<double> seconds;
      start(collectives, {}).wait();
      for (int round = 0; round < rounds; ++round) {
        comm.barrier("bench").wait();
        const double begin = steady_seconds();
        Event last;
        for (int i = 0; i < length; ++i) last = start(collectives, last);
        last.wait();
        seconds.push_back((steady_seconds() - begin) / length);
      }
      speeds.push_back({name, comm.size(), piece * ranks, of_slowest_rank(comm, machine, median(seconds))});
    }
  return speeds;
}

}  // namespace muster

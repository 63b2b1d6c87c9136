#include "comm/communicator.hpp"

#include "comm/signs_of_life.hpp"
#include "core/error.hpp"

namespace muster {

std::vector<Event> Communicator::all_gathers(std::span<const std::vector<std::span<std::byte>>> rounds,
                                             const std::string& what, const Event& after) {
  std::vector<Event> done;
  for (const auto& pieces : rounds) done.push_back(all_gather(pieces, what, after));
  return done;
}

Event Communicator::reduce_scatter(std::span<const std::span<float>>, const std::string&, const Event&) {
  throw Defect("reduce_scatter by a communicator that does not sum");
}

std::unique_ptr<SignsOfLife> Communicator::exchange_signs(const std::function<Sign()>&, double) {
  return nullptr;
}

std::vector<std::string> gather_strings(Communicator& comm, const std::string& mine,
                                        const std::string& what) {
  const auto ranks = static_cast<std::size_t>(comm.size()), self = static_cast<std::size_t>(comm.rank());
  std::vector<std::uint64_t> lengths(ranks);
  lengths[self] = mine.size();
  std::vector<std::span<std::byte>> pieces;
  for (std::uint64_t& length : lengths) pieces.push_back(std::as_writable_bytes(std::span(&length, 1)));
  comm.all_gather(pieces, what).wait();

  std::vector<std::string> strings(ranks);
  strings[self] = mine;
  for (std::size_t r = 0; r < ranks; ++r) {
    strings[r].resize(lengths[r]);
    pieces[r] = std::as_writable_bytes(std::span(strings[r]));
  }
  comm.all_gather(pieces, what).wait();
  return strings;
}

}  // namespace muster

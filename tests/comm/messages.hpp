// What tests of communicators send: bytes that tell where they come from, in sizes that differ.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/error.hpp"
#include "tests/comm/place.hpp"

namespace muster {

using Bytes = std::vector<std::byte>;

template <class A, class B>
void expect_equal(const A& seen, const B& wanted, SourceLine where = SourceLine::current()) {
  if (!(seen == wanted))
    throw std::runtime_error(fmt::format("{}:{}: not the expected value", where.file, where.line));
}

inline void expect(bool holds, SourceLine where = SourceLine::current()) { expect_equal(holds, true, where); }

inline std::size_t index(int rank) { return static_cast<std::size_t>(rank); }

// Bytes that name their sender, receiver and collective.
inline Bytes message(int from, int to, int collective, std::size_t size) {
  Bytes bytes(size);
  for (std::size_t i = 0; i < size; ++i) {
    const std::size_t value = i * 131 + index(from) * 29 + index(to) * 7 + index(collective) * 3;
    bytes[i] = static_cast<std::byte>(value ^ (value >> 8));
  }
  return bytes;
}

// Messages among all ranks whose sizes differ: some pairs exchange nothing.
inline std::size_t awkward_size(int from, int to, std::size_t scale) {
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
inline std::vector<std::size_t> equal_ends(int ranks, std::size_t size) {
  std::vector<std::size_t> ends;
  for (int r = 1; r <= ranks; ++r) ends.push_back(index(r) * size);
  return ends;
}
inline std::vector<std::size_t> awkward_ends(int ranks, std::size_t scale) {
  std::vector<std::size_t> ends;
  for (int r = 0; r < ranks; ++r)
    ends.push_back((ends.empty() ? 0 : ends.back()) + awkward_size(r, 1, scale));
  return ends;
}

}  // namespace muster

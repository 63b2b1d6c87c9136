#include "trainer/bench/link_probe.hpp"

#include <algorithm>

#include "trainer/plan/ownership.hpp"

namespace muster {
namespace {

double mean_seconds(const std::deque<CollectiveRow>& rows) {
  double seconds = 0;
  for (const CollectiveRow& row : rows) seconds += row.seconds();
  return seconds / static_cast<double>(rows.size());
}

}  // namespace

LinkProbe::LinkProbe(Communicator& comm, Machine& machine) {
  for (const char* collective : {comm.sums() ? "reduce_scatter" : "all_to_all", "all_gather"}) {
    small_.emplace_back(comm, machine, collective, 1 << 10, 1);
    large_.emplace_back(comm, machine, collective, sizeof(float) * bucket_elements, 1);
  }
}

void LinkProbe::sample() {
  for (std::deque<CollectiveRow>* rows : {&large_, &small_})
    for (CollectiveRow& row : *rows) {
      row.run();  // the ranks come from their steps one after the other
      for (int i = 0; i < 3; ++i) row.measure();
    }
}

Link LinkProbe::link() const {
  const auto bytes = static_cast<double>(large_.front().bytes());
  const int ranks = large_.front().ranks();
  Link link;
  link.latency = mean_seconds(small_);
  link.bandwidth = bytes * (ranks - 1) / ranks / std::max(mean_seconds(large_) - link.latency, 1e-9);
  return link;
}

}  // namespace muster

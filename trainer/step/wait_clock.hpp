// How long a rank is held up by the others: what passes on its stream between the points before and after a wait.
#pragma once

#include <functional>
#include <utility>
#include <vector>

#include "core/stream.hpp"

namespace muster {

class WaitClock {
 public:
  explicit WaitClock(Stream& stream) : stream_(stream) {}

  // `append` puts waits on the stream.
  template <class Fn>
  void during(Fn&& append) {
    auto begin = stream_.timestamp();
    std::forward<Fn>(append)();
    spans_.push_back({std::move(begin), stream_.timestamp()});
  }

  // Seconds of each wait since the last call, in their order; to be asked for when the stream has come to here.
  std::function<std::vector<double>()> take() {
    return [spans = std::exchange(spans_, {})] {
      std::vector<double> seconds;
      for (const Span& span : spans) seconds.push_back(span.end() - span.begin());
      return seconds;
    };
  }

 private:
  struct Span {
    std::function<double()> begin, end;
  };
  Stream& stream_;
  std::vector<Span> spans_;
};

}  // namespace muster

#include "trainer/bench/ops.hpp"

#include <algorithm>
#include <cstring>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <map>

#include "model/update/flat_kernels.hpp"
#include "model/update/fresh_values.hpp"
#include "trainer/bench/measure.hpp"

namespace muster {
namespace {

constexpr int runs = 11;

// What a kernel is given in place of the values of a run: numbers around zero, and integers that are rows of tables,
// positions or borders of documents.
struct Fill {
  std::int64_t tokens = 1;  // of the micro-batch
  std::int64_t rows = 1;    // that every table of the op has

  std::vector<std::byte> operator()(const Value& value) const {
    const auto filled = [&]<class T>(T, const auto& value_at) {
      std::vector<std::byte> bytes(value.type.bytes());
      for (std::int64_t i = 0; i < value.type.elements(); ++i) {
        const T element = value_at(i);
        std::memcpy(bytes.data() + static_cast<std::size_t>(i) * sizeof(T), &element, sizeof(T));
      }
      return bytes;
    };
    const auto number = [](std::int64_t i) {
      return static_cast<float>((i * 2654435761u >> 8) & 0xffff) * 0x1p-15f - 1.0f;
    };
    constexpr std::int64_t document = 64;
    switch (value.type.dtype) {
      case DType::f32:
        return filled(float(), number);
      case DType::bf16:
        return filled(bf16(), [&](std::int64_t i) { return bf16(number(i)); });
      case DType::i32:
        return filled(std::int32_t(), [&](std::int64_t i) {
          const std::int64_t integer = value.name == "document_starts" ? std::min(i * document, tokens)
                                       : value.name == "positions"     ? i % std::min(document, rows)
                                                                       : i * 7919 % rows;
          return static_cast<std::int32_t>(integer);
        });
      default:
        return std::vector<std::byte>(value.type.bytes());
    }
  }
};

// Rows of the smallest table that an op reads or writes; padded ones may be half of a small vocabulary's.
std::int64_t rows_of_tables(const Graph& graph, const Node& node) {
  std::int64_t rows = 1 << 20;
  for (const auto& ids : {node.inputs, node.outputs})
    for (const ValueId id : ids)
      if (id && (graph[id].role == Role::parameter || graph[id].role == Role::gradient))
        rows = std::min(rows, std::max<std::int64_t>(1, graph.type(id).rows() / 2));
  return rows;
}

// One kernel on several sets of tensors.
class Lone {
 public:
  Lone(const Plan& plan, const PlanStep& step, Machine& machine, std::uint64_t cache_bytes)
      : plan_(plan),
        node_(plan.node(step)),
        step_(step),
        machine_(machine),
        fill_{plan.graph.type(plan.find("tokens")).elements(), rows_of_tables(plan.graph, node_)} {
    const StepScalars scalars;
    scalars_ = take(sizeof(scalars));
    machine.stream().copy(scalars_.data(), &scalars, sizeof(scalars));
    workspace_ = take(step.workspace_bytes);
    std::uint64_t set = 0;
    for (const auto& ids : {node_.inputs, node_.outputs})
      for (const ValueId id : ids) set += id ? Buffer::counted(plan.graph.type(id).bytes()) : 0;
    const std::uint64_t sets = std::max<std::uint64_t>(1, 4 * cache_bytes / std::max<std::uint64_t>(set, 1));
    for (std::uint64_t i = 0; i < std::min<std::uint64_t>(sets, runs + 1); ++i) sets_.push_back(make_set());
    machine.stream().synchronize();
  }

  void append() {
    const Set& set = sets_[next_++ % sets_.size()];
    machine_.stream().enqueue([this, &set](NativeStream native) {
      KernelArgs args;
      args.inputs = set.inputs;
      args.outputs = set.outputs;
      args.workspace = workspace_.data();
      args.scalars = scalars_.as<const StepScalars>().data();
      args.random_key = node_.random_key;
      args.accumulate = true;
      args.stream = native;
      args.context = machine_.backend().context.get();
      step_.run(*node_.op, args);
    });
  }

 private:
  struct Set {
    std::vector<Buffer> memory;
    std::vector<TensorView> inputs, outputs;
  };

  Buffer take(std::uint64_t bytes) {
    return bytes == 0 ? Buffer()
                      : Buffer(account_, MemoryKind::activations, bytes, machine_.device().memory());
  }

  Set make_set() {
    Set set;
    std::map<ValueId, TensorView> views;  // what is given twice lies in one place, as in a run
    const auto view = [&](ValueId id) -> TensorView {
      if (!id) return {};
      if (const auto known = views.find(id); known != views.end()) return known->second;
      const Value& value = plan_.graph[id];
      const Buffer& memory = set.memory.emplace_back(take(value.type.bytes()));
      const std::vector<std::byte>& host = filled(id);
      machine_.stream().copy(memory.data(), host.data(), host.size());
      return views[id] = {memory.data(), &value.type};
    };
    for (const ValueId id : node_.inputs) set.inputs.push_back(view(id));
    for (const ValueId id : node_.outputs) set.outputs.push_back(view(id));
    return set;
  }

  // The values of a tensor in the host's memory; the sets are copies of them.
  const std::vector<std::byte>& filled(ValueId id) {
    std::vector<std::byte>& bytes = filled_[id];
    if (!bytes.empty()) return bytes;
    bytes = fill_(plan_.graph[id]);
    return bytes;
  }

  const Plan& plan_;
  const Node& node_;
  const PlanStep& step_;
  Machine& machine_;
  const Fill fill_;
  MemoryAccount account_;
  Buffer scalars_, workspace_;
  std::map<ValueId, std::vector<std::byte>> filled_;
  std::vector<Set> sets_;
  std::size_t next_ = 0;
};

void set_share(OpSpeed& speed, const Ceilings& ceilings, std::uint64_t cache_bytes) {
  speed.copy = ceilings.copy(speed.bytes);
  const double products = speed.flops / ceilings.matrix_peak, memory = speed.bytes / speed.copy;
  speed.limit = products > memory                                ? Limit::products
                : speed.bytes > static_cast<double>(cache_bytes) ? Limit::copy
                                                                 : Limit::cache;
  speed.share = std::max(products, memory) / speed.seconds;
}

std::string shapes_of(const Graph& graph, const Node& node) {
  const auto list = [&](const std::vector<ValueId>& ids) {
    std::vector<std::string> types;
    for (const ValueId id : ids)
      if (id) types.push_back(to_string(graph.type(id)));
    return types;
  };
  return fmt::format("{} -> {}", fmt::join(list(node.inputs), " "), fmt::join(list(node.outputs), " "));
}

void add_flat_kernels(std::vector<OpSpeed>& speeds, Machine& machine, const Ceilings& ceilings,
                      std::uint64_t cache_bytes) {
  // Four times the cache in each space.
  // No power of two: processors that guess a line's place in the first cache from its address take spaces that far apart
  // for one, and miss at each access (Zen 4: AdamW with AVX2 at a quarter of its speed). A model's spaces rarely lie so.
  const std::int64_t elements = (static_cast<std::int64_t>(cache_bytes) / flat_block + 5) * flat_block;
  const auto count = static_cast<std::uint64_t>(elements);
  MemoryAccount account;
  const auto take = [&](std::uint64_t bytes) {
    return Buffer(account, MemoryKind::optimizer, bytes, machine.device().memory());
  };
  const Buffer w = take(4 * count), m = take(4 * count), v = take(4 * count), g = take(4 * count);
  const Buffer half = take(2 * count), sums = take(8 * count / flat_block), kept = take(sizeof(StepOutcome));
  const FlatKernels& flat = machine.flat();
  Stream& stream = machine.stream();
  const StepOutcome outcome;
  stream.copy(kept.data(), &outcome, sizeof(outcome));
  std::vector<float> gradient(count);
  fill_normal(gradient, 0, 1, 1, 3);
  stream.copy(g.data(), gradient.data(), 4 * count);
  stream.synchronize();

  const auto measure = [&](std::string_view name, double bytes, const Stream::Work& work) {
    OpSpeed speed;
    speed.op = name;
    speed.shapes = fmt::format("f32[{}]", elements);
    speed.bytes = bytes * static_cast<double>(elements);
    speed.seconds = median(seconds_of_runs(stream, runs, [&] { stream.enqueue(work); }));
    set_share(speed, ceilings, cache_bytes);
    speeds.push_back(speed);
  };
  const AdamW adamw({0.9, 0.95}, 1e-8, 0.1);
  const Sgd sgd(0.9, false, 1e-4);
  for (const Optimizer* optimizer :
       {static_cast<const Optimizer*>(&adamw), static_cast<const Optimizer*>(&sgd)}) {
    UpdateRange range{w.as<float>(), {}, g.as<const float>()};
    const std::span<float> spaces[] = {m.as<float>(), v.as<float>()};
    std::copy_n(spaces, optimizer->slots().size(), range.state.begin());
    measure(optimizer->name(), optimizer->bytes_per_element(), [&](NativeStream native) {
      optimizer->update(native, flat, 1e-3, kept.as<const StepOutcome>().data(), range);
    });
  }
  measure("block_squares", 4,
          [&](NativeStream native) { flat.block_squares(native, g.as<const float>(), sums.as<double>()); });
  measure("add", 12, [&](NativeStream native) { flat.add(native, w.as<float>(), g.as<const float>()); });
  measure("to_bf16", 6,
          [&](NativeStream native) { flat.to_bf16(native, g.as<const float>(), half.as<bf16>()); });
}

}  // namespace

std::string_view name_of(Limit limit) {
  return limit == Limit::products ? "products" : limit == Limit::copy ? "copy" : "cache";
}

std::vector<OpSpeed> bench_ops(const Plan& plan, Machine& machine, const Ceilings& ceilings,
                               std::uint64_t cache_bytes) {
  std::vector<OpSpeed> speeds;
  std::map<std::string, std::size_t> known;
  CacheFlush flush(machine, cache_bytes);
  for (const PlanStep& step : plan.steps) {
    const Node& node = plan.node(step);
    const std::string shapes = shapes_of(plan.graph, node);
    const auto [place, is_new] =
        known.try_emplace(fmt::format("{} {}", node.op->name(), shapes), speeds.size());
    if (!is_new) {
      ++speeds[place->second].calls;
      continue;
    }
    OpSpeed speed;
    speed.op = node.op->name();
    speed.shapes = shapes;
    speed.calls = 1;
    const Cost cost = node.op->cost(plan.graph.types(node.inputs), plan.graph.types(node.outputs));
    speed.flops = cost.matrix_flops;
    speed.bytes = cost.bytes;
    Lone lone(plan, step, machine, cache_bytes);
    flush.append();
    speed.seconds = median(seconds_of_runs(machine.stream(), runs, [&] { lone.append(); }));
    set_share(speed, ceilings, cache_bytes);
    speeds.push_back(speed);
  }
  add_flat_kernels(speeds, machine, ceilings, cache_bytes);
  return speeds;
}

}  // namespace muster

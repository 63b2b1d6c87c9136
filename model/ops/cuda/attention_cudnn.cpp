// Attention by cuDNN: graphs of its frontend, built once for each shape and kept.
//
// The gradient always takes cuDNN's deterministic algorithm, so that a step gives the same bits every time.
#include <cudnn.h>
#include <dlfcn.h>
#include <map>
#include <unordered_map>

#include "core/cuda/check.hpp"
#include "model/ops/cuda/attention_graphs.hpp"
#include "model/ops/cuda/attention_library.hpp"
#include "model/ops/cuda/segment_layout.hpp"

// The frontend calls cuDNN through this handle, so that a binary built with cuDNN starts where there is none.
namespace cudnn_frontend {
void* cudnn_dlhandle = nullptr;
}

namespace muster::cuda {
namespace {

using Graph = fe::graph::Graph;

// The tensors of a call, as the frontend takes them.
class Pointers {
 public:
  Pointers(std::initializer_list<std::pair<Uid, void*>> tensors) { add(tensors); }
  void add(std::initializer_list<std::pair<Uid, void*>> tensors) {
    for (const auto& [uid, data] : tensors) by_uid_[static_cast<std::int64_t>(uid)] = data;
  }
  std::unordered_map<std::int64_t, void*>& by_uid() { return by_uid_; }

 private:
  std::unordered_map<std::int64_t, void*> by_uid_;
};

// Lengths of 0 give NaN before it, and the slots behind the last segment are such.
constexpr std::size_t first_version_with_empty_segments = 92500;

void expect(fe::error_t error, const char* what, SourceLine where = SourceLine::current()) {
  if (error.is_bad()) throw Defect(fmt::format("cuDNN: {}: {}", what, error.get_message()), where);
}

void expect(cudnnStatus_t status, const char* what, SourceLine where = SourceLine::current()) {
  if (status != CUDNN_STATUS_SUCCESS)
    throw Defect(fmt::format("cuDNN: {}: {}", what, fe::detail::get_error_string(status)), where);
}

Problem problem_of(const AttentionShape& shape, const TensorType& q_source, const TensorType& kv_source,
                   std::int64_t segments) {
  return {shape,
          q_source.rows() / shape.batch,
          kv_source.rows() / shape.batch,
          q_source.columns(),
          kv_source.columns(),
          segments};
}

std::int64_t segments_of(const TensorView& starts) { return starts ? starts.elements() - 1 : 0; }

SegmentStarts starts_of(const TensorView& queries, const TensorView& keys) {
  return {queries.as<const std::int32_t>(), keys.as<const std::int32_t>(), segments_of(queries)};
}

// Loads cuDNN, once. Why there is none; empty: there is one.
const std::string& cudnn_missing() {
  static const std::string missing = [] {
    // The frontend would take the oldest runtime that it finds, not the one that this binary is linked with.
    setenv("CUDNN_FRONTEND_CUDART_LIB_NAME", fmt::format("libcudart.so.{}", CUDART_VERSION / 1000).c_str(),
           0);
    fe::cudnn_dlhandle = dlopen("libcudnn.so.9", RTLD_NOW);
    return fe::cudnn_dlhandle ? std::string() : fmt::format("cuDNN 9 was not found: {}", dlerror());
  }();
  return missing;
}

class Handle {
 public:
  Handle() { expect(fe::detail::create_handle(&handle_), "creating a handle"); }
  ~Handle() { fe::detail::destroy_handle(handle_); }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  cudnnHandle_t on(NativeStream stream) const {
    expect(fe::detail::set_stream(handle_, static_cast<cudaStream_t>(stream)), "choosing a stream");
    return handle_;
  }
  cudnnHandle_t get() const { return handle_; }

 private:
  cudnnHandle_t handle_ = nullptr;
};

class Cudnn final : public AttentionLibrary {
 public:
  // cuDNN for the current GPU is created when it is first asked for.
  Cudnn() = default;
  explicit Cudnn(AbsentDevice device) : device_(std::move(device)) {}

  std::string version() const override {
    return cudnn_missing().empty() ? fmt::format("cuDNN {}", fe::detail::get_backend_version()) : "no cuDNN";
  }

  std::string refusal(const AttentionShape& shape, const TensorType& q_source, const TensorType& kv_source,
                      std::int64_t segments) override {
    const Problem problem = problem_of(shape, q_source, kv_source, segments);
    std::string reason =
        library_unsuited(shape, q_source.dtype, problem.queries, problem.keys, problem.segments);
    return reason.empty() ? plans_of(problem).refusal : reason;
  }

  void forward(const AttentionShape& shape, const KernelArgs& args) override {
    const TensorView &q_source = args.inputs[0], &kv_source = args.inputs[1], &query_starts = args.inputs[2],
                     &o = args.outputs[0];
    const Problem problem = problem_of(shape, *q_source.type, *kv_source.type, segments_of(query_starts));
    const Plans& plans = plans_of(problem);
    check(plans.refusal.empty(), "what cuDNN refuses is computed elsewhere");
    Pointers pointers{{Uid::q, at(q_source, shape.q_column)},
                      {Uid::k, at(kv_source, shape.k_column)},
                      {Uid::v, at(kv_source, shape.v_column)},
                      {Uid::o, o.data},
                      {Uid::lse, args.outputs[1].data}};
    std::byte* workspace = args.workspace;
    if (problem.segments > 0) {
      const SegmentStarts starts = starts_of(query_starts, args.inputs[3]);
      const SegmentLayout layout = lay_out_segments(problem, starts, problem.segments, args, workspace);
      point_at_segments(pointers, layout, 0);
      clear_unpaired_outputs(starts, {SideRows::Side::queries, o.data, o.rows(), o.columns(), 0, o.columns()},
                             args.outputs[1].as<float>(), problem.queries, shape.heads, args.stream);
    }
    expect(plans.forward->execute(handle_->on(args.stream), pointers.by_uid(), workspace), "attention");
  }

  void gradient(const AttentionShape& shape, bool same_source, const KernelArgs& args) override {
    const TensorView &q_source = args.inputs[1], &kv_source = args.inputs[2], &query_starts = args.inputs[5];
    const TensorView &dq_source = args.outputs[0], &dkv_source = args.outputs[same_source ? 0 : 1];
    const Problem problem = problem_of(shape, *q_source.type, *kv_source.type, segments_of(query_starts));
    const Plans& plans = plans_of(problem);
    check(plans.refusal.empty(), "what cuDNN refuses is computed elsewhere");
    clear_other_columns(problem, same_source, dq_source, dkv_source, args.stream);

    const LibrarySlice slice = plans.slice;
    const std::int64_t slices = (problem.samples() + slice.samples - 1) / slice.samples;
    std::byte* workspace = args.workspace;
    std::optional<SegmentLayout> layout;
    if (problem.segments > 0) {
      const SegmentStarts starts = starts_of(query_starts, args.inputs[6]);
      layout = lay_out_segments(problem, starts, slices * slice.samples, args, workspace);
      const auto heads = [&](SideRows::Side side, const TensorView& tensor, std::int64_t column, int count) {
        return SideRows{side,          tensor.data,
                        tensor.rows(), tensor.columns(),
                        column,        std::int64_t{count} * shape.head_size};
      };
      clear_unpaired(starts,
                     {heads(SideRows::Side::queries, dq_source, shape.q_column, shape.heads),
                      heads(SideRows::Side::keys, dkv_source, shape.k_column, shape.kv_heads),
                      heads(SideRows::Side::keys, dkv_source, shape.v_column, shape.kv_heads)},
                     args.stream);
    }

    const cudnnHandle_t handle = handle_->on(args.stream);
    for (std::int64_t s = 0; s < slices; ++s)
      for (int head = 0; head < shape.kv_heads; head += slice.kv_heads) {
        // A ragged batch has its samples in its offsets.
        const std::int64_t sample = layout ? 0 : s * slice.samples;
        const std::int64_t q_row = sample * problem.queries, kv_row = sample * problem.keys;
        const std::int64_t q_head = std::int64_t{head} * problem.group();
        const std::int64_t q_shift = q_row * problem.q_width + q_head * shape.head_size;
        const std::int64_t kv_shift = kv_row * problem.kv_width + std::int64_t{head} * shape.head_size;
        const std::int64_t o_shift = q_row * problem.o_width() + q_head * shape.head_size;
        Pointers pointers{{Uid::q, at(q_source, shape.q_column + q_shift)},
                          {Uid::k, at(kv_source, shape.k_column + kv_shift)},
                          {Uid::v, at(kv_source, shape.v_column + kv_shift)},
                          {Uid::o, at(args.inputs[3], o_shift)},
                          {Uid::d_o, at(args.inputs[0], o_shift)},
                          {Uid::lse, at(args.inputs[4], (sample * shape.heads + q_head) * problem.queries)},
                          {Uid::d_q, at(dq_source, shape.q_column + q_shift)},
                          {Uid::d_k, at(dkv_source, shape.k_column + kv_shift)},
                          {Uid::d_v, at(dkv_source, shape.v_column + kv_shift)}};
        if (layout) point_at_segments(pointers, *layout, s * slice.samples);
        expect(plans.gradient->execute(handle, pointers.by_uid(), workspace), "the gradient of attention");
      }
  }

 private:
  struct Plans {
    std::string refusal;
    LibrarySlice slice = {};  // of the gradient
    std::shared_ptr<Graph> forward = {}, gradient = {};
  };

  static std::byte* at(const TensorView& tensor, std::int64_t element) {
    return tensor.data + element * static_cast<std::int64_t>(size_of(tensor.dtype()));
  }

  // In the first bytes of the workspace, which is moved behind them.
  static SegmentLayout lay_out_segments(const Problem& problem, SegmentStarts starts, std::int64_t count,
                                        const KernelArgs& args, std::byte*& workspace) {
    const SegmentLayout layout(workspace, count);
    workspace += SegmentLayout::bytes(count);
    layout.fill(starts, problem.queries, problem.shape.heads,
                {problem.q_width, problem.kv_width, problem.o_width()}, args.stream);
    return layout;
  }

  static void point_at_segments(Pointers& pointers, const SegmentLayout& layout, std::int64_t first) {
    pointers.add({{Uid::q_offsets, layout.q + first},
                  {Uid::kv_offsets, layout.kv + first},
                  {Uid::o_offsets, layout.o + first},
                  {Uid::lse_offsets, layout.lse + first},
                  {Uid::q_lengths, layout.q_lengths + first},
                  {Uid::kv_lengths, layout.kv_lengths + first}});
  }

  static void clear_other_columns(const Problem& problem, bool same_source, const TensorView& dq_source,
                                  const TensorView& dkv_source, NativeStream stream) {
    const auto clear = [&](const TensorView& tensor, std::int64_t written) {
      if (written < tensor.columns())
        check_cuda(cudaMemsetAsync(tensor.data, 0, tensor.type->bytes(), static_cast<cudaStream_t>(stream)),
                   "clearing a gradient");
    };
    const std::int64_t kv = std::int64_t{2} * problem.shape.kv_heads * problem.shape.head_size;
    if (same_source) return clear(dq_source, problem.o_width() + kv);
    clear(dq_source, problem.o_width());
    clear(dkv_source, kv);
  }

  const Plans& plans_of(const Problem& problem) {
    const auto key = problem.key();
    const auto known = plans_.find(key);
    return known != plans_.end() ? known->second : plans_.emplace(key, make_plans(problem)).first->second;
  }

  Plans make_plans(const Problem& problem) {
    try {
      if (!cudnn_missing().empty()) return {cudnn_missing()};
      if (std::string reason = unsupported(problem); !reason.empty()) return {std::move(reason)};
      const auto& [shape, queries, keys, q_width, kv_width, segments] = problem;
      const LibrarySlice slice = library_gradient_slice(shape, queries, keys, segments);
      std::uint64_t most = library_workspace(shape, queries, keys, segments);
      std::uint64_t most_of_gradient = library_gradient_workspace(shape, queries, keys, segments);
      if (segments > 0) {
        most -= SegmentLayout::bytes(segments);
        most_of_gradient -= SegmentLayout::bytes(segments + slice.samples);
      }
      Plans plans{{},
                  slice,
                  GraphBuilder(problem, {problem.samples(), shape.kv_heads}, device_).forward(),
                  GraphBuilder(problem, slice, device_).gradient()};
      if (!device_ && !handle_) handle_.emplace();
      plan(*plans.forward, most);
      plan(*plans.gradient, most_of_gradient);
      return plans;
    } catch (const std::exception& error) {
      return {error.what()};
    }
  }

  // What cuDNN itself would not refuse.
  std::string unsupported(const Problem& problem) const {
    const std::size_t version = fe::detail::get_backend_version();
    // (A GPU that is elsewhere has a cuDNN of its own.)
    if (!device_ && problem.segments > 0 && version < first_version_with_empty_segments)
      return fmt::format("cuDNN {}.{} knows no segments that may be empty, 9.25 does", version / 10000,
                         version / 100 % 100);
    // Rows of heads begin at multiples of 16 bytes.
    for (const std::int64_t columns : {problem.q_width, problem.kv_width, problem.shape.q_column,
                                       problem.shape.k_column, problem.shape.v_column})
      if (columns % 8 != 0) return fmt::format("cuDNN wants columns in multiples of 8, not {}", columns);
    return {};
  }

  // Builds the plan of a graph; throws where cuDNN cannot.
  void plan(Graph& graph, std::uint64_t most_workspace) {
    std::int64_t bytes = 0;
    fe::error_t error = graph.validate();
    if (error.is_good())
      error = device_ ? graph.build_operation_graph() : graph.build_operation_graph(handle_->get());
    if (error.is_good()) error = graph.create_execution_plans({fe::HeurMode_t::A});
    if (error.is_good()) error = graph.check_support();
    if (error.is_good()) error = graph.build_plans();
    if (error.is_good()) error = graph.get_workspace_size(bytes);
    if (error.is_bad()) {
      const std::string message = error.get_message();
      throw std::runtime_error("cuDNN: " + message.substr(0, message.find('\n')));
    }
    if (static_cast<std::uint64_t>(bytes) > most_workspace)
      throw std::runtime_error(
          fmt::format("cuDNN wants a workspace of {} bytes, the plan has {}", bytes, most_workspace));
  }

  std::optional<AbsentDevice> device_;
  std::optional<Handle> handle_;
  std::map<Problem::Key, Plans> plans_;
};

}  // namespace

std::unique_ptr<AttentionLibrary> make_attention_library() { return std::make_unique<Cudnn>(); }

std::unique_ptr<AttentionLibrary> make_attention_library_for(const std::string& device_properties,
                                                             int compute_capability) {
  check(cudnn_missing().empty(), cudnn_missing().c_str());
  std::vector<std::uint8_t> json(device_properties.begin(), device_properties.end());
  json.push_back(0);
  auto properties = std::make_shared<fe::DeviceProperties>();
  expect(properties->deserialize(json), "reading a GPU's properties");
  return std::make_unique<Cudnn>(AbsentDevice{std::move(properties), compute_capability});
}

}  // namespace muster::cuda

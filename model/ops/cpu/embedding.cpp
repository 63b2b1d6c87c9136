// Rows of tables, and their gradient: a counting sort of the ids, then each row of the table is summed by one
// task.
#include "model/ops/embedding.hpp"

#include "model/ops/cpu/elementwise.hpp"
#include "model/ops/cpu/kernels.hpp"

MUSTER_BEGIN_ISA
namespace muster::cpu::MUSTER_ISA {
namespace {

// Workspace of the gradient: where the positions of each id begin (one entry more than ids), then the
// positions.
std::int64_t offsets_of(std::int64_t ids) { return ids + 1; }

}  // namespace

void embedding(const Op&, const KernelArgs& args) {
  const TensorView &table = args.inputs[1], &y = args.outputs[0];
  const bool positional = args.inputs.size() == 4 && args.inputs[2];
  const std::int64_t width = y.columns();
  with_type(table.dtype(), [&](auto like_table) {
    using W = decltype(like_table);
    with_type(y.dtype(), [&](auto like) {
      using T = decltype(like);
      const std::int32_t* tokens = args.inputs[0].as<std::int32_t>();
      parallel_ranges(y.rows(), rows_of_task(width), [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t row = begin; row < end; ++row) {
          const W* token_row = table.as<W>() + tokens[row] * width;
          T* to = y.as<T>() + row * width;
          if (positional) {
            const W* position_row = args.inputs[3].as<W>() + args.inputs[2].as<std::int32_t>()[row] * width;
            for_lanes(0, width, [=](std::int64_t c, auto part) {
              store(to + c, load(token_row + c, part) + load(position_row + c, part), part);
            });
          } else {
            for_lanes(0, width,
                      [=](std::int64_t c, auto part) { store(to + c, load(token_row + c, part), part); });
          }
        }
      });
    });
  });
}

std::uint64_t embedding_gradient_workspace(const Op&, Types inputs, Types outputs, int) {
  return static_cast<std::uint64_t>(offsets_of(outputs[0].rows()) + inputs[0].elements()) *
         sizeof(std::int32_t);
}

void embedding_gradient(const Op&, const KernelArgs& args) {
  const std::int32_t* ids = args.inputs[0].as<std::int32_t>();
  const std::int64_t positions = args.inputs[0].elements();
  const std::int64_t rows = args.outputs[0].rows(), width = args.outputs[0].columns();

  std::int32_t* begins = reinterpret_cast<std::int32_t*>(args.workspace);
  std::int32_t* sorted = begins + offsets_of(rows);
  std::fill_n(begins, rows + 1, 0);
  for (std::int64_t n = 0; n < positions; ++n) ++begins[ids[n] + 1];
  for (std::int64_t v = 0; v < rows; ++v) begins[v + 1] += begins[v];
  // Each position moves its id's begin on, so that begins[v] ends as the end of v: the begin of v + 1.
  for (std::int64_t n = 0; n < positions; ++n) sorted[begins[ids[n]]++] = static_cast<std::int32_t>(n);

  with_type(args.inputs[1].dtype(), [&](auto like) {
    using T = decltype(like);
    const T* dy = args.inputs[1].as<T>();
    float* table = args.outputs[0].as<float>();
    parallel_ranges(rows, std::max<std::int64_t>(1, rows / 512), [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t v = first; v < last; ++v) {
        const std::int32_t *begin = sorted + (v == 0 ? 0 : begins[v - 1]), *end = sorted + begins[v];
        if (begin == end) {
          if (!args.accumulate) std::fill_n(table + v * width, width, 0.0f);
          continue;
        }
        for_lanes(0, width, [&](std::int64_t c, auto part) {
          Floats sum = Floats{};
          for (const std::int32_t* n = begin; n < end; ++n) sum = sum + load(dy + *n * width + c, part);
          float* to = table + v * width + c;
          store(to, args.accumulate ? load(to, part) + sum : sum, part);
        });
      }
    });
  });
}

}  // namespace muster::cpu::MUSTER_ISA
MUSTER_END_ISA

// LayerNorm and RMSNorm with the residual addition, row by row; their gradient, whose sums over rows run over
// blocks.
#include "model/ops/norm.hpp"

#include <cmath>

#include "model/ops/cpu/elementwise.hpp"
#include "model/ops/cpu/kernels.hpp"

MUSTER_BEGIN_ISA
namespace muster::cpu::MUSTER_ISA {
namespace {

// Sum of term(c, part) over a row, in four chains so that additions need not wait for each other. Lanes
// beyond the row load as zero; a term that is not zero there masks them.
template <class Term>
MUSTER_INLINE float sum_of_row(std::int64_t columns, Term&& term) {
  Floats totals[4] = {};
  std::int64_t c = 0;
  for (; c + 4 * lanes <= columns; c += 4 * lanes)
    for (int i = 0; i < 4; ++i) totals[i] += term(c + i * lanes, WholeVector{});
  for_lanes(c, columns, [&](std::int64_t rest, auto part) { totals[0] += term(rest, part); });
  return sum((totals[0] + totals[1]) + (totals[2] + totals[3]));
}

// y = (s - mean) rstd weight (+ bias): the one place, so that both ops give the same bits.
template <class S, class Y>
void normalize_row(const S* s, float mean, float rstd, const float* weight, const float* bias, Y* y,
                   std::int64_t columns) {
  for_lanes(0, columns, [=](std::int64_t c, auto part) {
    const Floats h = (load(s + c, part) - mean) * rstd;
    const Floats w = load(weight + c, part);
    store(y + c, bias ? fma(h, w, load(bias + c, part)) : h * w, part);
  });
}

// Mean and 1 / standard deviation of a row whose sum is known.
template <class S>
void statistics_of_row(NormKind kind, float epsilon, const S* s, float total, std::int64_t columns,
                       float* statistics) {
  const float count = static_cast<float>(columns);
  const float mean = kind == NormKind::layer ? total / count : 0.0f;
  const float squares = sum_of_row(columns, [=](std::int64_t c, auto part) {
    const Floats centred = only(load(s + c, part) - mean, part);
    return centred * centred;
  });
  statistics[0] = mean;
  statistics[1] = 1.0f / std::sqrt(squares / count + epsilon);
}

// The sums over rows of one output each lie in the workspace, [blocks, C]. Blocks depend on the number of
// rows only.
std::int64_t rows_of_block(std::int64_t rows) { return std::max<std::int64_t>(32, (rows + 127) / 128); }
std::int64_t blocks_of(std::int64_t rows) { return (rows + rows_of_block(rows) - 1) / rows_of_block(rows); }

// to (+)= sum of the blocks, in order.
void combine(const float* blocks, std::int64_t count, std::int64_t columns, bool accumulate, float* to) {
  parallel_ranges(columns, 128, [=](std::int64_t begin, std::int64_t end) {
    for_lanes(begin, end, [=](std::int64_t c, auto part) {
      Floats total = Floats{};
      for (std::int64_t block = 0; block < count; ++block)
        total = total + load(blocks + block * columns + c, part);
      store(to + c, accumulate ? load(to + c, part) + total : total, part);
    });
  });
}

// One row's part of the gradient. `copy`, d_sum and dbias may be null.
template <class D, class S>
struct GradientRow {
  const D* dy;
  const S* d_sum;
  const S* s;
  const float* weight;
  S* ds;
  D* copy;
  float* dweight;
  float* dbias;

  void run(NormKind kind, float mean, float rstd, std::int64_t columns) const {
    const auto normalized = [=, this](std::int64_t c, auto part) {
      return (load(s + c, part) - mean) * rstd;
    };
    Floats sum_g = Floats{}, sum_gh = Floats{};
    for_lanes(0, columns, [&, this](std::int64_t c, auto part) {
      const Floats d = load(dy + c, part), h = normalized(c, part), g = d * load(weight + c, part);
      sum_g += g;
      sum_gh = fma(g, h, sum_gh);
      store(dweight + c, fma(d, h, load(dweight + c, part)), part);
      if (dbias) store(dbias + c, load(dbias + c, part) + d, part);
    });
    const float count = static_cast<float>(columns);
    const Floats mean_g = broadcast(kind == NormKind::layer ? sum(sum_g) / count : 0.0f);
    const Floats mean_gh = broadcast(sum(sum_gh) / count);
    for_lanes(0, columns, [&, this](std::int64_t c, auto part) {
      const Floats g = load(dy + c, part) * load(weight + c, part);
      const Floats tangent = fma(-normalized(c, part), mean_gh, g - mean_g);
      const Floats d = d_sum ? fma(broadcast(rstd), tangent, load(d_sum + c, part)) : rstd * tangent;
      store(ds + c, d, part);
      if (copy) store(copy + c, d, part);
    });
  }
};

}  // namespace

void residual_norm(const Op& op, const KernelArgs& args) {
  const auto& norm = static_cast<const ResidualNorm&>(op);
  const TensorView &residual = args.inputs[0], &branch = args.inputs[1], &y = args.outputs[0];
  const float *weight = args.inputs[2].as<float>(), *bias = args.inputs[3].as<float>();
  float* statistics = args.outputs[1].as<float>();
  const std::int64_t columns = residual.columns();
  with_type(residual.dtype(), [&](auto like_stream) {
    with_type(y.dtype(), [&](auto like) {
      with_type(branch ? branch.dtype() : DType::f32, [&](auto like_branch) {
        using S = decltype(like_stream);
        using Y = decltype(like);
        using B = decltype(like_branch);
        parallel_ranges(residual.rows(), rows_of_task(columns), [&](std::int64_t begin, std::int64_t end) {
          for (std::int64_t row = begin; row < end; ++row) {
            const S* s = residual.as<S>() + row * columns;
            float total = 0;
            if (branch) {
              const B* added = branch.as<B>() + row * columns;
              S* stream = args.outputs[2].as<S>() + row * columns;
              total = sum_of_row(columns, [=](std::int64_t c, auto part) {
                store(stream + c, load(s + c, part) + load(added + c, part), part);
                return load(stream + c, part);
              });
              s = stream;  // as rounded, so that backward and Renormalize see the same numbers
            } else if (norm.kind() == NormKind::layer) {
              total = sum_of_row(columns, [=](std::int64_t c, auto part) { return load(s + c, part); });
            }
            float* moments = statistics + 2 * row;
            statistics_of_row(norm.kind(), norm.epsilon(), s, total, columns, moments);
            normalize_row(s, moments[0], moments[1], weight, bias, y.as<Y>() + row * columns, columns);
          }
        });
      });
    });
  });
}

void renormalize(const Op&, const KernelArgs& args) {
  const TensorView &s = args.inputs[0], &y = args.outputs[0];
  const float *statistics = args.inputs[1].as<float>(), *weight = args.inputs[2].as<float>();
  const float* bias = args.inputs[3].as<float>();
  const std::int64_t columns = s.columns();
  with_type(s.dtype(), [&](auto like_stream) {
    with_type(y.dtype(), [&](auto like) {
      using S = decltype(like_stream);
      using Y = decltype(like);
      parallel_ranges(s.rows(), rows_of_task(columns), [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t row = begin; row < end; ++row)
          normalize_row(s.as<S>() + row * columns, statistics[2 * row], statistics[2 * row + 1], weight, bias,
                        y.as<Y>() + row * columns, columns);
      });
    });
  });
}

std::uint64_t norm_gradient_workspace(const Op& op, Types inputs, Types, int) {
  const std::int64_t sums = static_cast<const NormGradient&>(op).bias() ? 2 : 1;
  return static_cast<std::uint64_t>(sums * blocks_of(inputs[0].rows()) * inputs[0].columns()) * sizeof(float);
}

void norm_gradient(const Op& op, const KernelArgs& args) {
  const auto& norm = static_cast<const NormGradient&>(op);
  const TensorView &dy = args.inputs[0], &d_sum = args.inputs[1], &s = args.inputs[2];
  const float *statistics = args.inputs[3].as<float>(), *weight = args.inputs[4].as<float>();
  const std::int64_t rows = dy.rows(), columns = dy.columns(), blocks = blocks_of(rows);
  float* dweight_blocks = reinterpret_cast<float*>(args.workspace);
  float* dbias_blocks = norm.bias() ? dweight_blocks + blocks * columns : nullptr;
  with_type(dy.dtype(), [&](auto like) {
    with_type(s.dtype(), [&](auto like_stream) {
      using D = decltype(like);
      using S = decltype(like_stream);
      D* copy = args.outputs.size() > (norm.bias() ? 3u : 2u) ? args.outputs.back().as<D>() : nullptr;
      parallel_tasks(blocks, [&](std::int64_t block, int) {
        float* dweight = dweight_blocks + block * columns;
        float* dbias = dbias_blocks ? dbias_blocks + block * columns : nullptr;
        std::fill_n(dweight, columns, 0.0f);
        if (dbias) std::fill_n(dbias, columns, 0.0f);
        const std::int64_t begin = block * rows_of_block(rows),
                           end = std::min(rows, begin + rows_of_block(rows));
        for (std::int64_t row = begin; row < end; ++row) {
          const std::int64_t at = row * columns;
          const GradientRow<D, S> gradient{dy.as<D>() + at,
                                           d_sum ? d_sum.as<S>() + at : nullptr,
                                           s.as<S>() + at,
                                           weight,
                                           args.outputs[0].as<S>() + at,
                                           copy ? copy + at : nullptr,
                                           dweight,
                                           dbias};
          gradient.run(norm.kind(), statistics[2 * row], statistics[2 * row + 1], columns);
        }
      });
    });
  });
  combine(dweight_blocks, blocks, columns, args.accumulate, args.outputs[1].as<float>());
  if (dbias_blocks) combine(dbias_blocks, blocks, columns, args.accumulate, args.outputs[2].as<float>());
}

}  // namespace muster::cpu::MUSTER_ISA
MUSTER_END_ISA

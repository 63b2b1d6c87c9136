// What an operation is: a shape rule, a cost, a gradient rule. Its kernels live in cpu/ and cuda/
// (kernel.hpp).
//
// An op is an immutable value that nodes of a graph share. docs/architecture.md tells how to add one.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "core/tensor.hpp"

namespace muster {

struct Cost {
  double matrix_flops =
      0;             // of matrix products and attention: 2 for a multiply and add; causal attention at half
  double bytes = 0;  // least memory traffic: every input read once, every output written once
};

class Differentiator;  // graph/differentiate.hpp
struct Node;           // graph/graph.hpp
class Op;
using OpPtr = std::shared_ptr<const Op>;

// How an output can be computed again from what backward keeps anyway: `op` applied to these inputs and
// outputs of the node that computed it.
struct Recipe;

class Op {
 public:
  virtual ~Op() = default;

  // Names the kernels, too: "linear", "linear_input_gradient".
  virtual std::string_view name() const = 0;

  // Types of the outputs; throws Defect when the inputs do not fit. An absent optional input has an empty
  // shape.
  virtual std::vector<TensorType> infer(std::span<const TensorType> inputs) const = 0;

  // By default no products, and every byte once.
  virtual Cost cost(std::span<const TensorType> inputs, std::span<const TensorType> outputs) const;

  // Appends the nodes that compute the gradients of node's inputs. Ops of the backward pass have no gradient.
  virtual void differentiate(Differentiator& gradients, const Node& node) const;

  // For output i: the index of the input whose memory it may take when that input is not needed afterwards;
  // -1: none.
  virtual int may_overwrite(int output) const;

  // For train.recompute = "norms": how output i is computed again cheaply; nothing: it is kept.
  virtual std::optional<Recipe> recipe(const Node& node, int output) const;

  // The output is a running sum over micro-batches (the gradient of a parameter): see KernelArgs::accumulate.
  virtual bool accumulates(int output) const;
};

}  // namespace muster

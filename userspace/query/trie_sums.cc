#include "userspace/query/trie_sums.h"

#include <algorithm>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <unordered_map>
#include <utility>

#include "userspace/base/strings.h"
#include "userspace/store/chunk.h"

namespace pyrometer::query {

using store::SaturatingAdd;

Status SumParts(const Engine& engine, const std::vector<StackPart>& parts, TimeRange range, MergeHeader* header,
                uint64_t* samples,
                const std::function<Status(size_t, const store::FunctionTrie&, const store::StackSums&)>& visit) {
  std::vector<size_t> begins;  // of the parts of one trie
  for (size_t i = 0; i < parts.size(); ++i) {
    if (i == 0 || parts[i].selection.trie != parts[i - 1].selection.trie) begins.push_back(i);
  }
  begins.push_back(parts.size());
  std::vector<store::StackSums> heads(parts.size());  // without their sums
  std::vector<uint64_t> counts(parts.size());
  const auto sum_trie = [&](size_t piece) -> Status {
    for (size_t i = begins[piece]; i < begins[piece + 1]; ++i) {
      RETURN_IF_ERROR(Check(engine.budget()));
      ASSIGN_OR_RETURN(store::StackSums sums, engine.reader().SumStacks(parts[i].selection, range, engine.budget()));
      if (sums.points == 0) continue;
      store::ScopedCharge charge(engine.budget());
      RETURN_IF_ERROR(charge.Add(sums.sums.size() * sizeof(store::StackSum)));
      // After the sums: then every stack in them is known.
      ASSIGN_OR_RETURN(const std::shared_ptr<store::FunctionTrie> functions,
                       engine.reader().Functions(parts[i].selection.trie, engine.late_names()));
      {
        const std::shared_lock lock(functions->mutex);
        RETURN_IF_ERROR(visit(i, *functions, sums));
      }
      for (const store::StackSum& row : sums.sums) counts[i] = SaturatingAdd(counts[i], row.count);
      sums.sums = {};
      heads[i] = std::move(sums);
    }
    return OkStatus();
  };
  RETURN_IF_ERROR(engine.reader().Parallel(begins.size() - 1, sum_trie));
  for (size_t i = 0; i < parts.size(); ++i) {
    header->Saw(heads[i]);
    *samples = SaturatingAdd(*samples, counts[i]);
  }
  return OkStatus();
}

StatusOr<NodeSums> NodeSums::Totals(const store::FunctionTrie& functions, const store::StackSums& sums) {
  const size_t size = functions.size();
  NodeSums result{.samples = std::vector<uint64_t>(size),
                  .value = std::vector<uint64_t>(size),
                  .first_child = std::vector<uint32_t>(size),
                  .next_sibling = std::vector<uint32_t>(size)};
  for (const store::StackSum& row : sums.sums) {
    if (row.leaf >= functions.leaf_count()) return DataLossError("damaged stack samples: unknown stack");
    const uint32_t node = functions.leaf(row.leaf);
    result.samples[node] = SaturatingAdd(result.samples[node], row.count);
    result.value[node] = SaturatingAdd(result.value[node], row.value);
  }
  for (size_t i = size; i-- > 1;) {
    const auto node = static_cast<uint32_t>(i);
    if (!result.used(node)) continue;
    const uint32_t parent = functions.parent(node);
    result.samples[parent] = SaturatingAdd(result.samples[parent], result.samples[node]);
    result.value[parent] = SaturatingAdd(result.value[parent], result.value[node]);
    result.next_sibling[node] = result.first_child[parent];
    result.first_child[parent] = node;
  }
  return result;
}

UsedTree UsedTree::Of(const store::FunctionTrie& functions, const NodeSums& sums) {
  UsedTree tree;
  std::vector<uint32_t> nodes = {0};  // there, in the order of here: level by level
  std::vector<uint32_t> local(functions.symbols().size());
  tree.symbols.emplace_back();
  tree.symbol.push_back(0);
  tree.samples.push_back(sums.samples[0]);
  tree.value.push_back(sums.value[0]);
  for (size_t i = 0; i < nodes.size(); ++i) {
    tree.first_child.push_back(static_cast<uint32_t>(nodes.size()));
    for (uint32_t child = sums.first_child[nodes[i]]; child != 0; child = sums.next_sibling[child]) {
      nodes.push_back(child);
      uint32_t& symbol = local[functions.symbol(child)];
      if (symbol == 0) {
        symbol = static_cast<uint32_t>(tree.symbols.size());
        tree.symbols.push_back(functions.symbols()[functions.symbol(child)]);
      }
      tree.symbol.push_back(symbol | (functions.inlined(child) ? kInlinedBit : 0));
      tree.samples.push_back(sums.samples[child]);
      tree.value.push_back(sums.value[child]);
    }
  }
  tree.first_child.push_back(static_cast<uint32_t>(nodes.size()));
  return tree;
}

size_t SymbolTable::SlotOf(const store::Symbol& symbol) const {
  uint64_t hash = (uint64_t{symbol.name} << 32 | symbol.module) * 0x9E3779B97F4A7C15u;
  hash ^= hash >> 32;
  hash ^= (symbol.address << 3 | static_cast<uint64_t>(symbol.kind)) * 0xC2B2AE3D27D4EB4Fu;
  hash *= 0xBF58476D1CE4E5B9u;
  return static_cast<size_t>(hash >> 32) & (slots_.size() - 1);
}

void SymbolTable::Grow() {
  slots_.assign(std::max<size_t>(1024, slots_.size() * 2), 0);
  for (uint32_t id = 0; id < symbols_.size(); ++id) {
    size_t slot = SlotOf(symbols_[id]);
    while (slots_[slot] != 0) slot = (slot + 1) & (slots_.size() - 1);
    slots_[slot] = id + 1;
  }
}

uint32_t SymbolTable::Id(const store::Symbol& symbol) {
  if (slots_.size() < symbols_.size() * 2 + 2) Grow();
  size_t slot = SlotOf(symbol);
  for (; slots_[slot] != 0; slot = (slot + 1) & (slots_.size() - 1)) {
    const store::Symbol& known = symbols_[slots_[slot] - 1];
    if (known.name == symbol.name && known.module == symbol.module && known.kind == symbol.kind &&
        known.address == symbol.address) {
      return slots_[slot] - 1;
    }
  }
  symbols_.push_back(symbol);
  slots_[slot] = static_cast<uint32_t>(symbols_.size());
  return slots_[slot] - 1;
}

namespace {

// What a box without a name shows; as profile::Dictionary::FrameName.
std::string PlaceName(std::string_view module, profile::FrameKind kind, uint64_t address) {
  if (kind == profile::FrameKind::kJit) return "[jit]";
  if (module.empty()) return "[unknown]";
  return StrFormat("%s+0x%x", module.substr(module.rfind('/') == std::string_view::npos ? 0 : module.rfind('/') + 1),
                   address);
}

}  // namespace

StatusOr<std::vector<profile::FlameGraph::Function>> Describe(const store::StoreReader& reader,
                                                              const std::vector<store::Symbol>& symbols) {
  std::vector<uint32_t> ids;
  for (const store::Symbol& symbol : symbols) {
    ids.insert(ids.end(), {symbol.name, symbol.module, symbol.file, symbol.build_id});
  }
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  ASSIGN_OR_RETURN(const std::vector<std::string> texts, reader.Texts(ids));
  std::unordered_map<uint32_t, const std::string*> text_of;
  text_of.reserve(ids.size());
  for (size_t i = 0; i < ids.size(); ++i) text_of.emplace(ids[i], &texts[i]);
  const auto text = [&](uint32_t id) -> const std::string& { return *text_of.at(id); };
  std::vector<profile::FlameGraph::Function> functions;
  functions.reserve(symbols.size());
  for (const store::Symbol& symbol : symbols) {
    profile::FlameGraph::Function& function = functions.emplace_back();
    function.module = text(symbol.module);
    function.name = symbol.name != 0 ? text(symbol.name) : PlaceName(function.module, symbol.kind, symbol.address);
    function.file = text(symbol.file);
    function.line = symbol.line;
    function.kind = symbol.kind;
    function.build_id = text(symbol.build_id);
  }
  return functions;
}

}  // namespace pyrometer::query

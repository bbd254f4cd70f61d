#include "userspace/rpc/top_codec.h"

#include <utility>

#include "proto/pyrometer/v1/pyrometer.pb.h"
#include "userspace/base/strings.h"
#include "userspace/rpc/convert.h"
#include "userspace/rpc/wire_tables.h"

namespace pyrometer::rpc {
namespace {

// The Linux kernel and a browser together have a million functions.
constexpr size_t kMaxRows = 64u << 20;

}  // namespace

Status EncodeTop(const MergeTopReply& reply, const std::function<Status(const v1::TopChunk&)>& sink,
                 size_t chunk_bytes) {
  v1::TopChunk chunk;
  size_t bytes = 0;
  // A header with one sample is one piece.
  RETURN_IF_ERROR(EncodeProfile(reply.whole, [&](const v1::ProfileChunk& header) {
    chunk.mutable_header()->MergeFrom(header);
    return OkStatus();
  }));
  for (const profile::LabelledTop& top : reply.tops) {
    v1::TopTable* table = chunk.add_tables();
    WriteLabels(top.labels, table->mutable_labels());
    table->set_total(top.table.total);
    table->set_functions(top.table.functions);
    for (const profile::FunctionCost& row : top.table.rows) {
      if (bytes >= chunk_bytes) {
        RETURN_IF_ERROR(sink(chunk));
        chunk.Clear();
        bytes = 0;
        table = chunk.add_tables();
        table->set_continued(true);
      }
      v1::FunctionCost* wire = table->add_rows();
      wire->set_name(WireText(row.name, kMaxStringBytes));
      wire->set_module(WireText(row.module, kMaxStringBytes));
      wire->set_file(WireText(row.file, kMaxStringBytes));
      wire->set_kind(static_cast<uint32_t>(row.kind));
      wire->set_self(row.self);
      wire->set_total(row.total);
      bytes += wire->ByteSizeLong();
    }
    bytes += 64;  // of many small tables
  }
  return sink(chunk);
}

Status TopDecoder::Add(const v1::TopChunk& chunk) {
  if (!has_header_) {
    ProfileDecoder header;
    RETURN_IF_ERROR(header.Add(chunk.header()));
    ASSIGN_OR_RETURN(reply_.whole, header.Finish());
    has_header_ = true;
  }
  for (const v1::TopTable& wire : chunk.tables()) {
    if (wire.continued()) {
      if (reply_.tops.empty()) return InvalidArgumentError("rows that belong to no table");
    } else {
      profile::LabelledTop& top = reply_.tops.emplace_back();
      ASSIGN_OR_RETURN(top.labels, ReadLabels(wire.labels()));
      top.table.total = wire.total();
      top.table.functions = wire.functions();
    }
    rows_ += static_cast<size_t>(wire.rows_size());
    if (rows_ > kMaxRows) return InvalidArgumentError(StrFormat("more than %d functions", kMaxRows));
    for (const v1::FunctionCost& from : wire.rows()) {
      profile::FunctionCost& row = reply_.tops.back().table.rows.emplace_back();
      row.name = from.name();
      row.module = from.module();
      row.file = from.file();
      // A kind that a newer store knows and we do not is unknown, not an error.
      if (from.kind() <= static_cast<uint32_t>(profile::FrameKind::kSynthetic)) {
        row.kind = static_cast<profile::FrameKind>(from.kind());
      }
      row.self = from.self();
      row.total = from.total();
    }
  }
  return OkStatus();
}

StatusOr<MergeTopReply> TopDecoder::Finish() {
  if (!has_header_) return InvalidArgumentError("an answer without any piece");
  for (profile::LabelledTop& top : reply_.tops) top.table.SetPercents();
  return std::move(reply_);
}

}  // namespace pyrometer::rpc

// What the page says about what it shows.

const CAVEATS = "Values are stored in 16 bits: weights are exact to 0.00001, distances to 0.01 %. Distance and CKA are means over the probed test images, also where one class or one image is chosen.";

// What a cell's mark says of it, and what that means.
const MARKS = { "★": ["highest weight", ""], "◇": ["smallest distance", "easiest to imitate"], "●": ["highest CKA", "most similar"] };

const markWords = (mark) => MARKS[mark].filter(Boolean).join(": ");
const markLegend = (marks) => make("p", { class: "marks" }, "In each row: ", marks.map((mark) => make("span", {}, make("b", { "aria-hidden": "true" }, mark), ` ${markWords(mark)}`)));

// A view in words: where it stands, and how far ease explains the map.
function summary({ run, epoch, wanted, step, images, weights, distances, cka, against, difference }, state) {
  const rows = weights.length;
  const single = run.low > 0 ? run.shareAtBound({ ...state, epoch }) : null;
  const accuracy = run.accuracy[epoch - 1];
  const facts = [
    `Epoch ${epoch} of ${run.epochs}${run.complete ? "" : ` so far, ${run.planned} planned`}${wanted === epoch ? "" : `, the nearest kept to ${wanted}`}`,
    accuracy !== undefined && `test accuracy ${fixed(accuracy)}\u00a0%`,
    step === "mean" ? "mean of all time steps" : `time step ${step}`,
    images === "mean" ? `mean of up to ${run.probe} test images` : images,
    difference && `minus ${against}`,
  ];
  const verdict = [];
  const ordered = weights.some(unequal);
  const agree = (best) => weights.filter((row, s) => unequal(row) && argmax(row) === best(s)).length;
  if (!ordered) verdict.push("All teacher layers have the same weight.");
  if (ordered && distances) {
    const similar = cka ? `, on the most similar (by CKA) in ${agree((s) => argmax(cka[s]))}` : "";
    verdict.push(`The highest weight is on the easiest teacher layer in ${agree((s) => argmin(distances[s]))} of ${rows} rows${similar}.`);
  }
  if (ordered && run.low > 0) {
    const bound = weights.filter((row) => Math.max(...row) >= nearBound(run)).length;
    const each = single === 1 ? `every one of the ${run.images} recorded images` : `${percent(single)} of the rows of the ${run.images} recorded images`;
    verdict.push(`It is at the upper bound in ${bound} of ${rows}${single === null ? "" : `, and in ${each}`}.`);
  }
  return [facts.filter(Boolean).join(" · "), verdict.join(" ")];
}

function help() {
  const item = (term, ...what) => [make("dt", {}, term), make("dd", {}, ...what)];
  return make("dl", { class: "help" },
    item("Weight η", "How much of a student layer's distance to a teacher layer enters the loss (Eq. 5 and 6). The weights of a student layer, at a time step and for an image, sum to 1. They are recorded after each epoch, in evaluation mode, on the same test images."),
    item("Uniform, 1/A", "With A teacher layers, no preference gives 1/A to each."),
    item("Lowest and highest possible", "Queries and keys have unit length, so their products lie between −1 and 1 and the weights within bounds. The colour scale spans just these. No layer can be chosen outright, and a map that cannot get any sharper still looks soft. At the upper bound means within 1 % of the range."),
    item("Distance d", "Mean squared difference of projected student map and teacher map, without its weight. The projectors are trained too, so a distance falls as the student learns."),
    item("CKA", "Linear centred kernel alignment of the two layers: 1 where both order the images alike. It is not part of the loss, so it is the more independent judge."),
    item("Entropy", "−Σ η ln η of the weights shown: ln A if uniform. The entropy of a mean is never below the mean of the entropies."),
    item("Difference", "The weight shown minus another: of a step, a class, the first epoch, the second run, or uniform. The colours span the largest difference shown."),
    item("Long runs", "To keep the page light, fewer epochs of a run may be kept, first of the weights by class and by image. The slider stops at those; of a second run that has not the same, the nearest is shown and named."),
    item("Keys", "Arrows move the epoch and walk over the heat map, Enter opens the similarity matrices of a cell after the map, Escape closes them."));
}

"""Every word of the report, in English and in Persian, and how each language sets a number.

No sentence holds a measured number: the values are put in by `content`. Which of several sentences is said
(`…_yes`, `…_no`) is chosen there, by the data.
"""

# ruff: noqa: E501, RUF001 - Persian letters, which fill less than their count, and the minus sign are meant.

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

#: Kept apart from the direction of the text around it, a minus sign or a unit stays on its side.
_LEFT_TO_RIGHT, _RIGHT_TO_LEFT, _END = "\u2066", "\u2067", "\u2069"

_ENGLISH = {
    # Page one
    "title": "Fine-tuning T5 in four ways: which weights need to move?",
    "by": "Report by {name}, student number {number}",
    "no_name": "NAME NOT GIVEN",
    "no_number": "NUMBER NOT GIVEN",
    "rehearsal": "A rehearsal, not a hand-in",
    "rehearsal_text": "The assignment asks for {wanted_base} on {wanted_reviews}. What was run is the profile "
    "“{profile}”: base {base}, reviews {reviews}. The rows can be compared with one another, not with the "
    "assignment's numbers.",
    "incomplete": "Missing runs: {runs}.",
    "mixed": "The runs are not alike in: {what}. Rows that differ in it are not comparable.",
    "what_ran": "What was run on what",
    "profile": "Profile",
    "base": "Base",
    "base_value": "{name}, {parameters} parameters, {encoder} + {decoder} layers of width {width}, {sha}",
    "base_made": "Base made by",
    "base_made_value": "own pre-training: {tokens} tokens in {minutes} minutes",
    "reviews": "Reviews",
    "reviews_value": "{name}: {train} to train on, {test} to test on, inputs of {tokens} tokens",
    "all": "all",
    "training": "Training",
    "training_value": "{epochs} epochs in batches of {batch}, AdamW at a constant learning rate",
    "seed": "Seed",
    "device": "Device",
    "time": "Time",
    "time_value": "{training} of training and {evaluation} of evaluation in {runs} runs",
    "versions": "Versions",
    # The ten numbers
    "numbers": "The ten numbers",
    "run": "run",
    "rate": "rate",
    "best": "best epoch, %",
    "last": "last, %",
    "chosen": "validation-chosen, %",
    "malformed": "malformed, %",
    "seconds": "seconds",
    "at_epoch": "{value} (ep. {epoch})",
    "range": "{low} to {high}",
    "missing": "missing: not run",
    "not_measured": "not measured",
    "numbers_note": "Accuracy on the test reviews. Best epoch is the course's number: it selects on the test "
    "reviews. Validation-chosen does not: a fifth of them chose the epoch, the others were scored. Malformed "
    "outputs are neither label word and count as wrong.",
    "ranking": "The highest accuracy, of the best epoch, is {accuracy}, by {run}.",
    "bag_none": "None of the {runs} measured runs is above the bag of words ({accuracy}).",
    "bag_some": "Above the bag of words ({accuracy}): {above} of the {runs} measured runs.",
    "zero_shot_some": "The best zero-shot accuracy of the base is {accuracy}; above it: {above} of the {runs} runs.",
    "noise": "One standard error of these accuracies is up to {error} points on {reviews} test reviews: "
    "{close} of the {others} other runs lie within two standard errors of the difference from the highest.",
    "selection": "Over the {runs} runs, choosing the epoch on the test reviews is worth {last} points against "
    "the last epoch, on average, and {chosen} points against the choice by validation.",
    "figure_accuracy": "Test accuracy (best epoch) against trained parameters, with one standard error.",
    "trained_parameters": "trained parameters",
    "test_accuracy": "test accuracy, %",
    # Curves
    "curves": "Learning curves",
    "figure_curves": "Training loss within the epochs and test accuracy after each.",
    "epoch": "epoch",
    "training_loss": "training loss",
    "rising_some": "In {runs} of {all} runs the accuracy is highest in the last epoch: more epochs might have raised it.",
    "rising_none": "No run's accuracy is highest in the last epoch.",
    "largest_drop": "The accuracy falls most after the best epoch for {run}: by {points} points.",
    # Parameters
    "parameters": "The parameters, by hand and counted",
    "parameters_text": "E and D are the layers of encoder and decoder, d the model's width, i that of its "
    "attention (heads times head size); N, b and r are prompt rows, bottleneck and rank. The whole model is the base "
    "of {base} parameters and what is added:",
    "parameters_full": "Full fine-tuning adds nothing and trains every weight.",
    "parameters_soft_prompt": "A soft prompt is N rows of width d:",
    "parameters_adapter": "An adapter stands after each of the E + D feed-forward layers: down d·b weights and b "
    "biases, up b·d weights and d biases:",
    "parameters_lora": "LoRA is on q and v of E + 2·D attention blocks (a decoder layer has two, an encoder "
    "layer one), each with A\u00a0(d\u00a0×\u00a0r) and B\u00a0(r\u00a0×\u00a0i):",
    "with_numbers": "added, with numbers",
    "trainable": "trained",
    "whole": "whole model",
    "equal": "equal",
    "counts_yes": "All {runs} hand counts equal what torch counts, of the added parameters and of the whole model.",
    "counts_no": "{wrong} of {runs} hand counts differ from what torch counts.",
    # The claims
    "claims": "The assignment's three claims, measured",
    "claim_memory": "Claim: the optimiser's memory grows with what is trained",
    "claim_disk": "Claim: one small file a task is enough",
    "claim_base": "Claim: the base keeps what it knew, and overfits less",
    "per_parameter_yes": "Yes: the optimiser holds {bytes} bytes for each trained parameter, whatever "
    "the method.",
    "per_parameter_one": "The optimiser holds {bytes} bytes for each trained parameter of the one method that was run.",
    "per_parameter_no": "Not in proportion: the optimiser holds from {low} bytes for each trained parameter "
    "({low_run}) to {high} ({high_run}).",
    "optimizer_share": "Of full fine-tuning's {full} it is {low} ({low_run}) to {high} ({high_run}).",
    "optimizer_one": "Of full fine-tuning's {full} it is {low} ({low_run}).",
    "peak_lower": "The measured peak is lower than full fine-tuning's {full} in {below} of {runs} runs; the "
    "lowest is {low} ({low_run}), {ratio} of it.",
    "peak_none": "The measured peak is in none of {runs} runs lower than full fine-tuning's {full}.",
    "peak_kinds": "Peak: {kinds}.",
    "peak_resident": "resident memory of the whole process",
    "peak_cuda": "memory allocated on the GPU",
    "activations": "The activations, which every method needs, hold {shares} of the sum of the parts.",
    "figure_memory": "Memory while training, by part; the diamond is the measured peak.",
    "memory_parameters": "parameters",
    "memory_gradients": "gradients",
    "memory_optimizer": "optimiser state",
    "memory_activations": "activations",
    "peak": "peak",
    "memory": "memory",
    "delta": "file of the task",
    "share_of_base": "of the base",
    "disk_together": "The {runs} small files together take {together}, {share} of one base of {base}: a base and "
    "all of them need {with_base}, a fully tuned model for each would need {copies}.",
    "disk_full": "Full fine-tuning's file takes {size}.",
    "serves_yes": "One base serves them all: with the delta off, its loss is the untouched base's to the last "
    "bit in all {runs} runs where it can be switched off.",
    "serves_no": "With the delta off, the base's loss differs from the untouched base's in {wrong} of {runs} "
    "runs, by up to {most}.",
    "knows": "On {reviews} held-out reviews the base's own pre-training loss is {base}. With the delta on it is "
    "between {low} ({low_run}) and {high} ({high_run}).",
    "knows_full_most": "Full fine-tuning moves it most, by {change}.",
    "knows_full_not_most": "Full fine-tuning moves it by {change}, {run} by more: {most}.",
    "figure_knowledge": "The base's pre-training loss after tuning, with the delta on and off.",
    "pretraining_loss": "pre-training loss",
    "untouched": "untouched base",
    "delta_on": "tuned, delta on",
    "delta_off": "delta off",
    "gap": "Training accuracy less test accuracy runs from {low} points ({low_run}) to {high} ({high_run}).",
    "gap_full_most": "Full fine-tuning has the widest gap.",
    "gap_full_not_most": "Full fine-tuning's gap is {full} points: not the widest.",
    "small": "Trained on {reviews} reviews for {epochs} epochs (mean of {seeds} seeds), the gap after the last "
    "epoch runs from {low} points ({low_run}) to {high} ({high_run}).",
    "small_missing": "The small-data setting, where overfitting shows, was not measured.",
    "figure_small_data": "Small data: accuracy on the training reviews and on the test reviews, for each run; thin "
    "lines are seeds, thick ones their mean.",
    "on_training": "training reviews",
    "on_test": "test reviews",
    "accuracy": "accuracy, %",
    "gap_points": "train − test, points",
    "tuned_loss": "loss, on",
    "off_loss": "loss, off",
    # Time
    "clock": "Where the time went",
    "figure_time": "Seconds of training and of evaluation, by run.",
    "clock_text": "Evaluation took {share} of all the time, least in {low_run} ({low}), most in {high_run} ({high}).",
    "faster_yes": "{faster} of {runs} runs trained faster than full fine-tuning; the fastest, {run}, in {share} "
    "of its training time.",
    "faster_no": "No other run trained faster than full fine-tuning.",
    "in_training": "training",
    "in_evaluation": "evaluation",
    # Scratch and library
    "twins": "From scratch and through the library",
    "exact": "With the same weights and batches, {equal} of {rows} comparisons of a method from scratch with a "
    "library agree to the last bit in logits, loss, gradients and trained weights; {within} are within the "
    "limits, and {controls} of {rows} deliberate faults were noticed.",
    "exact_missing": "The comparison with the same weights was not measured.",
    "exact_places": "By default the libraries do otherwise in {places} places: report/exactness.md lists each, with its "
    "line of code.",
    "on_base": "compared on",
    "comparisons": "comparisons",
    "to_the_bit": "equal to the bit",
    "largest": "largest difference",
    "controls": "faults noticed",
    "base_tiny": "a tiny random T5",
    "base_offline": "the offline base",
    "base_t5-small": "a random model of t5-small's size",
    "twin": "method",
    "scratch": "from scratch, %",
    "library": "library, %",
    "difference": "difference, points",
    "two_errors": "two std. errors",
    "rates": "rates",
    "twins_text": "Trained apart, each from its own start, scratch and library are no more than two standard errors of "
    "the difference apart in {inside} of {pairs} pairs.",
    # Confounds
    "confounds": "What the constants confound",
    "alpha_no": "LoRA with r = {low} and r = {high} differ in more than rank: alpha is {alpha} in both, so the "
    "update is scaled by {low_scale} in one and {high_scale} in the other.",
    "alpha_yes": "LoRA's two ranks scale the update alike ({low_scale}), so rank alone differs.",
    "rate_no": "The adapters' rates differ: {scratch} from scratch, {library} through AdapterHub, a factor of "
    "{factor}. Their difference in accuracy is not one of implementations.",
    "rate_yes": "Both adapters of b = {size} train at {scratch} here; the contract gives the one from scratch ten times "
    "the library's rate.",
    "start": "A is stored as (d, r). Drawn by torch's Kaiming default in that shape, it would spread {ratio} times as "
    "wide as loralib's: {formula}. The kit draws it as loralib does.",
    "prompt_falls": "At its constant rate of {rate} the prompt of one row is best after epoch {epoch} ({best}) and ends "
    "at {last}: the rate, not the method, is being measured.",
    "prompt_falls_little": "At its constant rate of {rate} the prompt of one row is best after epoch {epoch} ({best}) "
    "and ends at {last}: a fall within two standard errors of the difference, which shows nothing of the rate.",
    "prompt_stays": "The prompt of one row, which gets worse at the contract's constant rate, does not here: at {rate} "
    "its last epoch is its best.",
    "confound_missing": "{trap}: cannot be judged, a run is missing.",
    "trap_alpha": "Scaling of LoRA's two ranks",
    "trap_rate": "Rates of the two adapters",
    "trap_start": "The start of LoRA's A",
    "trap_prompt": "The prompt of one row at a constant rate",
    "one_seed": "Every run has one seed, {seed}: how much another would change is not in these numbers.",
    "page": "page",
    # Methods and runs
    "full": "full fine-tuning",
    "soft_prompt": "soft prompt",
    "adapter": "adapter",
    "lora": "LoRA",
    "from_scratch": "from scratch",
    "through_library": "library",
    "bag_of_words": "bag of words",
    "zero_shot": "zero-shot, no prefix",
    "zero_shot_prefix": "zero-shot, sst2 prefix",
}

_PERSIAN = {
    "title": "تنظیم دقیق T5 به چهار روش: کدام وزن‌ها باید تغییر کنند؟",
    "by": "گزارش {name}، شمارهٔ دانشجویی {number}",
    "no_name": "نام داده نشده",
    "no_number": "شماره داده نشده",
    "rehearsal": "این یک تمرین است، نه نسخهٔ تحویلی",
    "rehearsal_text": "تکلیف {wanted_base} را روی {wanted_reviews} می‌خواهد. آنچه اجرا شده نمایهٔ «{profile}» است: مدل پایه "
    "{base}، نقدها {reviews}. سطرها را می‌توان با یکدیگر سنجید، نه با اعداد تکلیف.",
    "incomplete": "اجراهای غایب: {runs}.",
    "mixed": "اجراها در این موارد یکسان نیستند: {what}. سطرهایی که در آن فرق دارند با هم سنجیدنی نیستند.",
    "what_ran": "چه چیزی روی چه چیزی اجرا شد",
    "profile": "نمایه",
    "base": "مدل پایه",
    "base_value": "{name}، {parameters} پارامتر، {encoder} + {decoder} لایه با پهنای {width}، {sha}",
    "base_made": "ساخت مدل پایه",
    "base_made_value": "پیش‌آموزش خودمان: {tokens} توکن در {minutes} دقیقه",
    "reviews": "نقدها",
    "reviews_value": "{name}: {train} برای آموزش، {test} برای آزمون، ورودی‌های {tokens} توکنی",
    "all": "همه",
    "training": "آموزش",
    "training_value": "{epochs} دوره با دسته‌های {batch} تایی، AdamW با نرخ یادگیری ثابت",
    "seed": "دانهٔ تصادفی",
    "device": "دستگاه",
    "time": "زمان",
    "time_value": "{training} آموزش و {evaluation} ارزیابی در {runs} اجرا",
    "versions": "نسخه‌ها",
    "numbers": "ده عدد",
    "run": "اجرا",
    "rate": "نرخ",
    "best": "بهترین دوره، ٪",
    "last": "آخرین، ٪",
    "chosen": "انتخاب با اعتبارسنجی، ٪",
    "malformed": "بدشکل، ٪",
    "seconds": "ثانیه",
    "at_epoch": "{value} (دورهٔ {epoch})",
    "range": "{low} تا {high}",
    "missing": "غایب: اجرا نشده",
    "not_measured": "اندازه‌گیری نشده",
    "numbers_note": "درستی روی نقدهای آزمون. «بهترین دوره» عدد درس است و روی خود نقدهای آزمون انتخاب می‌کند. «انتخاب با "
    "اعتبارسنجی» چنین نیست: یک‌پنجم آن‌ها دوره را برگزیده و بقیه سنجیده شده‌اند. خروجی بدشکل هیچ‌یک از دو واژهٔ برچسب "
    "نیست و نادرست شمرده می‌شود.",
    "ranking": "بالاترین «بهترین دوره» {accuracy} است، از {run}.",
    "bag_none": "هیچ‌یک از {runs} اجرای اندازه‌گیری‌شده بالاتر از کیسهٔ واژه‌ها ({accuracy}) نیست.",
    "bag_some": "{above} اجرا از {runs} اجرای اندازه‌گیری‌شده بالاتر از کیسهٔ واژه‌ها ({accuracy}) هستند.",
    "zero_shot_some": "بهترین درستی بی‌آموزش مدل پایه {accuracy} است؛ {above} اجرا از {runs} اجرا از آن بالاترند.",
    "noise": "خطای معیار این درستی‌ها با {reviews} نقد آزمون تا {error} واحد درصد است: {close} اجرا از {others} اجرای دیگر در "
    "فاصلهٔ دو خطای معیارِ تفاضل از بالاترین هستند.",
    "selection": "به‌طور میانگین در {runs} اجرا، انتخاب دوره روی نقدهای آزمون در برابر آخرین دوره {last} واحد درصد و در "
    "برابر انتخاب با اعتبارسنجی {chosen} واحد درصد می‌افزاید.",
    "figure_accuracy": "درستی آزمون (بهترین دوره) در برابر شمار پارامترهای آموزش‌دیده، با یک خطای معیار.",
    "trained_parameters": "پارامترهای آموزش‌دیده",
    "test_accuracy": "درستی آزمون، ٪",
    "curves": "منحنی‌های یادگیری",
    "figure_curves": "زیان آموزش درون دوره‌ها و درستی آزمون پس از هر دوره.",
    "epoch": "دوره",
    "training_loss": "زیان آموزش",
    "rising_some": "درستی {runs} اجرا از {all} اجرا در آخرین دوره بیشینه است: شاید دوره‌های بیشتر آن را بالاتر می‌برد.",
    "rising_none": "درستی هیچ اجرایی در آخرین دوره بیشینه نیست.",
    "largest_drop": "بیشترین افت پس از بهترین دوره از آنِ {run} است: {points} واحد درصد.",
    "parameters": "پارامترها، با محاسبهٔ دستی و با شمارش",
    "parameters_text": "E و D شمار لایه‌های رمزگذار و رمزگشا، d پهنای مدل و i پهنای توجه آن (شمار سرها ضرب‌در اندازهٔ سر) است؛ "
    "N و b و r شمار سطرهای پرامپت، گلوگاه و رتبه‌اند. کل مدل همان پایه با {base} پارامتر است به‌علاوهٔ آنچه افزوده می‌شود:",
    "parameters_full": "تنظیم کامل چیزی نمی‌افزاید و همهٔ وزن‌ها را آموزش می‌دهد.",
    "parameters_soft_prompt": "پرامپت نرم N سطر با پهنای d است:",
    "parameters_adapter": "آداپتور پس از هر یک از E + D لایهٔ پیش‌خور می‌نشیند: پایین‌بر با d·b وزن و b بایاس، بالابر با b·d وزن و "
    "d بایاس:",
    "parameters_lora": "LoRA روی q و v در E + 2·D بلوک توجه است (لایهٔ رمزگشا دو بلوک دارد و لایهٔ رمزگذار یک بلوک)، هر کدام با "
    "\u2066A\u00a0(d\u00a0×\u00a0r)\u2069 و \u2066B\u00a0(r\u00a0×\u00a0i)\u2069:",
    "with_numbers": "افزوده، با اعداد",
    "trainable": "آموزش‌دیده",
    "whole": "کل مدل",
    "equal": "برابر",
    "counts_yes": "هر {runs} محاسبهٔ دستی با شمارش torch برابر است، هم برای پارامترهای افزوده و هم برای کل مدل.",
    "counts_no": "{wrong} محاسبهٔ دستی از {runs} با شمارش torch فرق دارد.",
    "claims": "سه ادعای تکلیف، اندازه‌گیری‌شده",
    "claim_memory": "ادعا: حافظهٔ بهینه‌ساز با آنچه آموزش می‌بیند رشد می‌کند",
    "claim_disk": "ادعا: یک فایل کوچک برای هر کار بس است",
    "claim_base": "ادعا: مدل پایه دانسته‌هایش را نگه می‌دارد و کمتر بیش‌برازش می‌کند",
    "per_parameter_yes": "آری: بهینه‌ساز در هر روشی برای هر پارامتر آموزش‌دیده {bytes} بایت نگه می‌دارد.",
    "per_parameter_one": "بهینه‌ساز برای هر پارامتر آموزش‌دیدهٔ تنها روشی که اجرا شده {bytes} بایت نگه می‌دارد.",
    "per_parameter_no": "نه به نسبت: بهینه‌ساز برای هر پارامتر آموزش‌دیده از {low} بایت ({low_run}) تا {high} بایت ({high_run}) "
    "نگه می‌دارد.",
    "optimizer_share": "این حافظه از {low} ({low_run}) تا {high} ({high_run}) از {full} تنظیم کامل است.",
    "optimizer_one": "این حافظه {low} ({low_run}) از {full} تنظیم کامل است.",
    "peak_lower": "اوج اندازه‌گیری‌شده در {below} اجرا از {runs} اجرا کمتر از {full} تنظیم کامل است؛ کمترین آن {low} ({low_run}) "
    "است، یعنی {ratio} آن.",
    "peak_none": "اوج اندازه‌گیری‌شده در هیچ‌یک از {runs} اجرا کمتر از {full} تنظیم کامل نیست.",
    "peak_kinds": "اوج: {kinds}.",
    "peak_resident": "حافظهٔ مقیم کل فرایند",
    "peak_cuda": "حافظهٔ گرفته‌شده روی GPU",
    "activations": "فعال‌سازی‌ها، که هر روشی به آن‌ها نیاز دارد، {shares} از مجموع اجزا را می‌گیرند.",
    "figure_memory": "حافظهٔ هنگام آموزش، به تفکیک اجزا؛ لوزی اوج اندازه‌گیری‌شده است.",
    "memory_parameters": "پارامترها",
    "memory_gradients": "گرادیان‌ها",
    "memory_optimizer": "حالت بهینه‌ساز",
    "memory_activations": "فعال‌سازی‌ها",
    "peak": "اوج",
    "memory": "حافظه",
    "delta": "فایل کار",
    "share_of_base": "نسبت به پایه",
    "disk_together": "{runs} فایل کوچک روی هم {together} جا می‌گیرند، {share} یک مدل پایهٔ {base}: پایه با همهٔ آن‌ها {with_base} "
    "می‌خواهد و یک مدل کاملاً تنظیم‌شده برای هر کدام {copies} می‌خواست.",
    "disk_full": "فایل تنظیم کامل {size} است.",
    "serves_yes": "یک پایه به همه خدمت می‌کند: با خاموش‌کردن دلتا، زیان پایه در هر {runs} اجرایی که خاموش‌شدنی است تا آخرین بیت "
    "همان زیان پایهٔ دست‌نخورده است.",
    "serves_no": "با خاموش‌کردن دلتا، زیان پایه در {wrong} اجرا از {runs} اجرا با پایهٔ دست‌نخورده فرق دارد، تا {most}.",
    "knows": "روی {reviews} نقد کنارگذاشته، زیان پیش‌آموزش مدل پایه {base} است. با دلتای روشن این زیان بین {low} ({low_run}) و {high} "
    "({high_run}) است.",
    "knows_full_most": "تنظیم کامل بیش از همه جابه‌جایش می‌کند: {change}.",
    "knows_full_not_most": "تنظیم کامل آن را {change} جابه‌جا می‌کند و {run} بیشتر: {most}.",
    "figure_knowledge": "زیان پیش‌آموزش مدل پایه پس از تنظیم، با دلتای روشن و خاموش.",
    "pretraining_loss": "زیان پیش‌آموزش",
    "untouched": "پایهٔ دست‌نخورده",
    "delta_on": "تنظیم‌شده، دلتا روشن",
    "delta_off": "دلتا خاموش",
    "gap": "درستی آموزش منهای درستی آزمون از {low} واحد درصد ({low_run}) تا {high} ({high_run}) است.",
    "gap_full_most": "پهن‌ترین شکاف از آنِ تنظیم کامل است.",
    "gap_full_not_most": "شکاف تنظیم کامل {full} واحد درصد است و پهن‌ترین نیست.",
    "small": "با آموزش روی {reviews} نقد در {epochs} دوره (میانگین {seeds} دانه)، شکاف پس از آخرین دوره از {low} واحد درصد "
    "({low_run}) تا {high} ({high_run}) است.",
    "small_missing": "حالت دادهٔ کم، که بیش‌برازش در آن پیداست، اندازه‌گیری نشده است.",
    "figure_small_data": "دادهٔ کم: درستی روی نقدهای آموزش و آزمون برای هر اجرا؛ خط‌های نازک دانه‌ها و خط‌های پررنگ میانگین آن‌ها هستند.",
    "on_training": "نقدهای آموزش",
    "on_test": "نقدهای آزمون",
    "accuracy": "درستی، ٪",
    "gap_points": "آموزش − آزمون، واحد",
    "tuned_loss": "زیان، روشن",
    "off_loss": "زیان، خاموش",
    "clock": "زمان کجا رفت",
    "figure_time": "ثانیه‌های آموزش و ارزیابی، به تفکیک اجرا.",
    "clock_text": "ارزیابی {share} کل زمان را گرفت، کمتر از همه در {low_run} ({low}) و بیشتر از همه در {high_run} ({high}).",
    "faster_yes": "{faster} اجرا از {runs} اجرا تندتر از تنظیم کامل آموزش دید؛ تندترین، {run}، در {share} زمان آموزش آن.",
    "faster_no": "هیچ اجرای دیگری تندتر از تنظیم کامل آموزش ندید.",
    "in_training": "آموزش",
    "in_evaluation": "ارزیابی",
    "twins": "از صفر و با کتابخانه",
    "exact": "با وزن‌ها و دسته‌های یکسان، {equal} مقایسه از {rows} مقایسهٔ روشِ از صفر با کتابخانه در لاجیت‌ها، زیان، گرادیان‌ها و "
    "وزن‌های آموزش‌دیده تا آخرین بیت برابرند؛ {within} در محدودهٔ مجازند و {controls} خطای عمدی از {rows} تشخیص داده شد.",
    "exact_missing": "مقایسه با وزن‌های یکسان اندازه‌گیری نشده است.",
    "exact_places": "کتابخانه‌ها به‌طور پیش‌فرض در {places} مورد جور دیگری عمل می‌کنند: report/exactness.md هر مورد را با خط کدش آورده است.",
    "on_base": "مقایسه روی",
    "comparisons": "مقایسه‌ها",
    "to_the_bit": "برابر تا بیت",
    "largest": "بیشترین اختلاف",
    "controls": "خطای دیده‌شده",
    "base_tiny": "یک T5 تصادفی ریز",
    "base_offline": "مدل پایهٔ برون‌خط",
    "base_t5-small": "مدلی تصادفی به اندازهٔ t5-small",
    "twin": "روش",
    "scratch": "از صفر، ٪",
    "library": "کتابخانه، ٪",
    "difference": "تفاضل، واحد",
    "two_errors": "دو خطای معیار",
    "rates": "نرخ‌ها",
    "twins_text": "با آموزش جداگانه و هر کدام از آغاز خود، {inside} جفت از {pairs} جفت بیش از دو خطای معیارِ تفاضل فرق ندارند.",
    "confounds": "آنچه ثابت‌ها در هم می‌آمیزند",
    "alpha_no": "LoRA با r = {low} و r = {high} در چیزی بیش از رتبه فرق دارند: آلفا در هر دو {alpha} است، پس به‌روزرسانی در یکی در "
    "{low_scale} و در دیگری در {high_scale} ضرب می‌شود.",
    "alpha_yes": "دو رتبهٔ LoRA به‌روزرسانی را یکسان مقیاس می‌کنند ({low_scale})، پس تنها رتبه فرق دارد.",
    "rate_no": "نرخ آداپتورها فرق دارد: {scratch} از صفر و {library} با AdapterHub، به نسبت {factor}. تفاوت درستی‌شان تفاوت "
    "پیاده‌سازی نیست.",
    "rate_yes": "هر دو آداپتور با b = {size} در اینجا با نرخ {scratch} آموزش می‌بینند؛ قرارداد به آداپتور از صفر ده برابر نرخ "
    "کتابخانه را می‌دهد.",
    "start": "A به شکل (d, r) نگهداری می‌شود. اگر با پیش‌فرض Kaiming در torch در همین شکل نمونه‌گیری شود، {ratio} برابر پهن‌تر از loralib "
    "پخش می‌شود: {formula}. این بسته مانند loralib نمونه می‌گیرد.",
    "prompt_falls": "پرامپت یک‌سطری با نرخ ثابت {rate} پس از دورهٔ {epoch} بهترین است ({best}) و به {last} می‌رسد: آنچه سنجیده می‌شود "
    "نرخ است نه روش.",
    "prompt_falls_little": "پرامپت یک‌سطری با نرخ ثابت {rate} پس از دورهٔ {epoch} بهترین است ({best}) و به {last} می‌رسد: این افت از "
    "دو خطای معیارِ تفاضل بیشتر نیست و چیزی دربارهٔ نرخ نشان نمی‌دهد.",
    "prompt_stays": "پرامپت یک‌سطری که با نرخ ثابت قرارداد بدتر می‌شود، اینجا چنین نیست: با نرخ {rate} آخرین دوره‌اش بهترین است.",
    "confound_missing": "{trap}: داوری نمی‌شود، یک اجرا غایب است.",
    "trap_alpha": "مقیاس دو رتبهٔ LoRA",
    "trap_rate": "نرخ دو آداپتور",
    "trap_start": "آغاز A در LoRA",
    "trap_prompt": "پرامپت یک‌سطری با نرخ ثابت",
    "one_seed": "هر اجرا تنها یک دانه دارد، {seed}: این اعداد نمی‌گویند دانه‌ای دیگر چه‌قدر تغییر می‌داد.",
    "page": "صفحهٔ",
    "full": "تنظیم کامل",
    "soft_prompt": "پرامپت نرم",
    "adapter": "آداپتور",
    "lora": "\u2066LoRA\u2069",
    "from_scratch": "از صفر",
    "through_library": "کتابخانه",
    "bag_of_words": "کیسهٔ واژه‌ها",
    "zero_shot": "بی‌آموزش، بی‌پیشوند",
    "zero_shot_prefix": "بی‌آموزش، با پیشوند sst2",
}

_UNITS = {
    "en": {"percent": "{} %", "seconds": "{} s", "": "{} B", "k": "{} kB", "M": "{} MB", "G": "{} GB"},
    "fa": {
        "percent": "{}٪",
        "seconds": "{} ثانیه",
        "": "{} بایت",
        "k": "{} کیلوبایت",
        "M": "{} مگابایت",
        "G": "{} گیگابایت",
    },
}

#: Method, source and size of each of the ten, from which a language makes its name.
_NAMES = {
    "full": ("full", "", ""),
    "prompt_scratch_n10": ("soft_prompt", "", "N = 10"),
    "prompt_opendelta_n1": ("soft_prompt", "OpenDelta", "N = 1"),
    "prompt_opendelta_n10": ("soft_prompt", "OpenDelta", "N = 10"),
    "adapter_scratch_b8": ("adapter", "", "b = 8"),
    "adapter_adapterhub_b8": ("adapter", "AdapterHub", "b = 8"),
    "adapter_adapterhub_b1": ("adapter", "AdapterHub", "b = 1"),
    "lora_scratch_r8": ("lora", "", "r = 8"),
    "lora_peft_r1": ("lora", "PEFT", "r = 1"),
    "lora_peft_r8": ("lora", "PEFT", "r = 8"),
}


@dataclass(frozen=True)
class Language:
    """The words of a language, and numbers as it sets them; digits are Latin in both."""

    code: str
    words: dict[str, str]

    @property
    def direction(self) -> str:
        return "rtl" if self.code == "fa" else "ltr"

    def say(self, key: str, **values: object) -> str:
        """The words `key` with `values` put in."""
        return self.words[key].format(**values)

    def join(self, parts: Iterable[str]) -> str:
        """The parts of a list."""
        return ("، " if self.code == "fa" else ", ").join(parts)

    def join_longer(self, parts: Iterable[str]) -> str:
        """The parts of a list that have commas themselves."""
        return ("؛ " if self.code == "fa" else "; ").join(parts)

    def run(self, name: str) -> str:
        """What the run (or the baseline) of this id is called."""
        return self.join([self.method_of(name), *filter(None, [self.source_and_size_of(name)])])

    def method_of(self, name: str) -> str:
        """The method alone, or the whole name of a baseline."""
        return self.words[_NAMES[name][0]] if name in _NAMES else self.words[name]

    def source_and_size_of(self, name: str) -> str:
        """What tells a run from others of its method: `from scratch, r = 8`; empty where there is only one."""
        if name not in _NAMES or name == "full":
            return ""
        _, library, _ = _NAMES[name]
        return self.join([self.ltr(library) or self.words["from_scratch"], self._size(name)])

    def size_of(self, name: str) -> str:
        """The size alone: `r = 8`."""
        return self._size(name) or self.words[name]

    def _size(self, name: str) -> str:
        return self.ltr(_NAMES[name][2].replace(" ", "\u00a0"))  # on one line

    def library_of(self, name: str) -> str:
        """The library of a run that has one."""
        return self.ltr(_NAMES[name][1])

    def range(self, low: str, high: str) -> str:
        """From `low` to `high`, or the one value that both are."""
        return low if low == high else self.say("range", low=low, high=high)

    def ltr(self, text: str) -> str:
        """`text`, which reads from left to right, to be put into a sentence."""
        return f"{_LEFT_TO_RIGHT}{text}{_END}" if text and self.code == "fa" else text

    def drawn(self, text: str) -> str:
        """`text` for a figure, where no paragraph gives it a direction."""
        return f"{_RIGHT_TO_LEFT}{text}{_END}" if self.code == "fa" else text

    def number(self, value: float, digits: int = 0) -> str:
        """1234.5 as 1,234 or 1,234.5; what would be a zero with a minus sign is a zero."""
        text = f"{value:,.{digits}f}"
        return self.ltr(text.lstrip("-") if not float(text.replace(",", "")) else text.replace("-", "−"))

    def points(self, share: float) -> str:
        """A difference of two shares, in points, with its sign."""
        value = round(100 * share, 1)
        return self.ltr(f"{value:+.1f}".replace("-", "−") if value else "0.0")

    def rate(self, value: float) -> str:
        """A learning rate: 0.003, 0.0001, 1e-5."""
        return self.ltr(f"{value:g}".replace("e-0", "e-"))

    def percent(self, share: float, digits: int = 1) -> str:
        """A share of 1 in percent."""
        return self._unit("percent", self.number(100 * share, digits))

    def share(self, share: float) -> str:
        """A share in percent with two figures that count, for shares that may be tiny."""
        value = 100 * share
        digits = 0 if value >= 10 else 1 if value >= 1 else 2 if value >= 0.1 else 3
        return self.percent(share, digits)

    def seconds(self, value: float) -> str:
        return self._unit("seconds", self.number(value))

    def bytes(self, value: float) -> str:
        """Decimal units, as a file manager shows them."""
        for prefix, unit in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
            if value >= unit:
                return self._unit(prefix, self.number(value / unit, 0 if value >= 100 * unit else 1))
        return self._unit("", self.number(value))

    def _unit(self, unit: str, number: str) -> str:
        return _UNITS[self.code][unit].format(number)


LANGUAGES = {"en": Language("en", _ENGLISH), "fa": Language("fa", _PERSIAN)}
